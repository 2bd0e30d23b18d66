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


def test_every_module_is_on_the_map_of_its_package() -> None:
    missing = []
    for package in ("models", "presence", "dispatch", "http_api", "embedded", "demo", "benchmarks"):
        on_the_map = (ROOT / package / "__init__.py").read_text()
        patterns = [re.escape(word).replace(r"\*", ".*") for word in re.findall(r"[\w*]+\.py", on_the_map)]
        for module in (ROOT / package).glob("*.py"):
            named = any(re.fullmatch(pattern, module.name) for pattern in patterns) or f"`{module.stem}`" in on_the_map
            if module.name != "__init__.py" and not named:
                missing.append(f"{package}/{module.name}")
    assert missing == []
