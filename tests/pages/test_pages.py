"""The pages' own tests, in Deno: it knows TypeScript, and runs their modules without a browser.

One file:  .venv/bin/deno test --no-check --allow-net=127.0.0.1 tests/pages/store.test.js
"""

import subprocess
from pathlib import Path

import pytest

from http_api.pages.serving import BROWSER, CLIENT
from tests.deno_program import AS_IT_STANDS, LOCAL, deno_environment
from tests.deno_program import deno as command_of

HERE = Path(__file__).parent
DEMO = HERE.parents[1] / "demo"


@pytest.fixture
def deno(request: pytest.FixtureRequest) -> "Deno":
    assert request.config.cache is not None
    return Deno(request.config.cache.mkdir("deno"))


class Deno:
    """The program, with what it has compiled kept for the next time."""

    def __init__(self, cache: Path) -> None:
        self._variables = deno_environment(cache)

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_of(*arguments),
            env=self._variables,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            stdin=subprocess.DEVNULL,
        )


def test_the_types_of_the_pages_and_of_their_tests_hold(deno: Deno) -> None:
    # The tests hold deliberate mistakes: that a check finds nothing says little unless it would find something.
    files = [
        file
        for folder in (CLIENT, BROWSER, DEMO, HERE, HERE.parent / "acceptance")
        for file in sorted(folder.glob("*.js"))
    ]
    checked = deno("check", *LOCAL, "--config", BROWSER / "jsconfig.json", *files)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.js")), ids=lambda file: file.name)
def test_the_pages_keep_their_promises(deno: Deno, file: Path) -> None:
    ran = deno("test", *AS_IT_STANDS, file)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "| 0 passed" not in ran.stdout


def test_what_is_thrown_outside_of_a_test_fails_as_well(deno: Deno, tmp_path: Path) -> None:
    file = tmp_path / "half.test.js"
    harness = (HERE / "harness.js").as_uri()
    file.write_text(
        f'import {{ test }} from "{harness}";\ntest("the only one", () => {{}});\nthrow new Error("never read");\n'
    )
    ran = deno("test", *AS_IT_STANDS, file)
    assert ran.returncode == 1, ran.stdout
    assert "never read" in ran.stdout + ran.stderr
