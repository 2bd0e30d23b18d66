"""The promises of the layout: imports point inward only, the code is clean, and what is written down is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize(
    "check",
    [["lint-imports", "--no-cache"], ["ruff", "check", "--no-cache", "."], ["ruff", "format", "--check", "."]],
    ids=" ".join,
)
def test_the_tools_that_keep_the_layout_have_nothing_to_say(check: list[str]) -> None:
    program, *arguments = check
    result = subprocess.run(
        [SCRIPTS / program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/decisions.md",
        "docs/settings.md",
        "docs/checkout.md",
        "docs/benchmarks.md",
        "GLOSSARY.md",
        "CHANGELOG.md",
    ],
)
def test_every_file_that_a_page_links_to_is_there(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


PACKAGES = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for top in ("models", "infra", "accounts", "presence", "dispatch", "http_api", "embedded", "demo", "benchmarks")
    for path in (ROOT / top).rglob("__init__.py")
)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_of_a_package_names_each_of_its_modules_and_nothing_else(package: str) -> None:
    folder = ROOT / package
    on_the_map = folder.joinpath("__init__.py").read_text()
    named = set(re.findall(r"(?<![\w/])\w+\.py", on_the_map))
    there = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    # Alembic finds its own files by itself.
    assert named - {"run.py"} == (set() if package == "models/migrations" else there)
    rooms = {path.name for path in folder.iterdir() if path.joinpath("__init__.py").exists()}
    assert {room for room in rooms if f"{room}/" not in on_the_map} == set()
