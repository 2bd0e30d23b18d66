"""The examples of docs/checkout.md, run as a reader would run them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.acceptance.clients import PATIENCE_S, pay
from tests.acceptance.servers import ROOT, Server, running_servers

PAGE = (ROOT / "docs" / "checkout.md").read_text()
PROGRAMS = {"python": [sys.executable, "-W", "error", "-"], "bash": ["bash", "-s"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_servers(tmp_path_factory.mktemp("checkout-page")) as [one]:
        yield one


def examples() -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_there_is_an_example_in_python_and_one_with_curl():
    assert [language for language, _ in examples()] == ["python", "bash"]


@pytest.mark.parametrize(("language", "text"), examples(), ids=[language for language, _ in examples()])
async def test_the_example_buys_a_session(server: Server, language: str, text: str, tmp_path: Path):
    if language == "bash" and shutil.which("curl") is None:
        reason = "there is no curl on this machine"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    await server.ready()
    script = tmp_path / "example"
    await anyio.Path(script).write_text(text)
    process = await anyio.to_thread.run_sync(partial(started, language, script, server.base_url))
    try:
        url = await anyio.to_thread.run_sync(partial(line_with, process, "Pay at: "))
        await pay(url)
        with anyio.fail_after(PATIENCE_S):
            rest, errors = await anyio.to_thread.run_sync(process.communicate)
        assert process.returncode == 0, errors
        assert re.fullmatch(r"Request: \w+ broadcasting\n", rest), rest
    finally:
        process.kill()
        process.wait()


def started(language: str, script: Path, base_url: str) -> subprocess.Popen[str]:
    with script.open() as text:
        return subprocess.Popen(
            PROGRAMS[language],
            stdin=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PITLANE_URL": base_url},
            text=True,
        )


def line_with(process: subprocess.Popen[str], beginning: str) -> str:
    """Return the rest of the first line that begins so; fails with what the example said instead."""
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return line.removeprefix(beginning).strip()
    raise AssertionError(process.stderr.read())


def test_the_page_names_every_problem_and_status_of_the_checkout():
    from http_api.rest.routes import checkout
    from models.rest import CheckoutState

    nothing: Any = None
    (create_checkout,) = (
        each for each in checkout.operations(nothing, nothing, nothing) if each.name == "create_checkout"
    )
    everywhere = {"unavailable"}
    assert [code for code in create_checkout.problems if code not in everywhere and f"`{code}`" not in PAGE] == []
    statuses = CheckoutState.__annotations__["status"].__args__
    assert [status for status in statuses if f"| `{status}` |" not in PAGE] == []
