"""The promises of the layout: imports point inward only, the code is clean, its types fit together, and what is written down
is there.
"""

import copy
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = Path(sys.executable).parent
TOPS = ("models", "infra", "accounts", "presence", "dispatch", "http_api", "clients", "embedded", "demo", "benchmarks")
TYPES_WITHIN_S = 600
"""In a fresh clone the packages that we use are read, too: half a minute of a core, which several tests may share."""


@pytest.mark.parametrize(
    "check",
    [["lint-imports", "--no-cache"], ["ruff", "check", "--no-cache", "."], ["ruff", "format", "--check", "."]],
    ids=" ".join,
)
def test_the_tools_that_keep_the_layout_have_nothing_to_say(check: list[str]) -> None:
    check_by(*check, within_s=60)


@pytest.mark.timeout(TYPES_WITHIN_S + 20)
def test_the_types_fit_together_from_the_wire_to_the_tables() -> None:
    check_by("mypy", within_s=TYPES_WITHIN_S)


def test_the_types_of_every_package_are_checked() -> None:
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    assert {*TOPS, "run.py", "bootstrap.py"} <= set(checked)


def check_by(program: str, *arguments: str, within_s: float) -> None:
    """Run one of the environment's programs over the checkout; fail with what it prints unless it finds nothing."""
    result = subprocess.run(
        [SCRIPTS / program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=within_s, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/decisions.md",
        "docs/settings.md",
        "docs/accounts.md",
        "docs/checkout.md",
        "docs/money.md",
        "docs/sessions.md",
        "docs/protocol.md",
        "docs/benchmarks.md",
        "clients/javascript/README.md",
        "GLOSSARY.md",
        "CHANGELOG.md",
    ],
)
def test_every_file_that_a_page_links_to_is_there(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_every_file_that_the_page_for_contributors_names_by_its_path_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"(?<![\w/.])(?:\w+/)+(?:[\w.]*\w\.(?:py|js|md))?(?![\w/])", text))
    assert len(named) > 20
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


PACKAGES = sorted(
    path.parent.relative_to(ROOT).as_posix() for top in TOPS for path in (ROOT / top).rglob("__init__.py")
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


# --- circles ----------------------------------------------------------------------------------------------------------


def circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Return the modules that know each other in a circle, one list for each circle: Tarjan's strongly connected components."""
    order: dict[str, int] = {}
    reaches: dict[str, int] = {}
    """The earliest module, by its place in ``order``, that a module leads back to."""
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = reaches[module] = len(order)
        path.append(module)
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            if imported not in order:
                visit(imported)
            if imported in path:
                reaches[module] = min(reaches[module], reaches[imported])
        if reaches[module] == order[module]:
            circle = path[path.index(module) :]
            del path[path.index(module) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for module in sorted(graph.modules):
        if module not in order:
            visit(module)
    return found


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Who imports whom in all our packages, also where it is only for the types, and inside functions."""
    return grimp.build_graph(*TOPS, "tests", exclude_type_checking_imports=False, cache_dir=None)


def test_no_modules_know_each_other_in_a_circle(graph: grimp.ImportGraph) -> None:
    assert circles(graph) == []


def test_a_circle_through_several_packages_would_be_found(graph: grimp.ImportGraph) -> None:
    planted = copy.deepcopy(graph)
    planted.add_import(importer="models.wire", imported="http_api.app")
    (circle,) = circles(planted)
    assert {"models.wire", "http_api.app", "http_api.sockets.hub", "dispatch.service"} <= set(circle)
