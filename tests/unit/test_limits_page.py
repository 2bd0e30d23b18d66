"""``docs/limits.md`` names every limit of the product, with the value that it has."""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from models import settings

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "limits.md").read_text()
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<value>[^|]+) \| `(?P<where>[\w.]+:[\w.]+)` \|$", re.MULTILINE)
ROWS = {row["where"]: row["value"] for row in ROW.finditer(PAGE)}
PACKAGES = ("models", "infra", "accounts", "presence", "dispatch", "http_api", "embedded")
SECTIONS = (settings.DoorSettings, settings.DispatchSettings, settings.PresenceSettings, settings.StripeSettings)
IS_LIMIT = re.compile(r"(^|_)(MAX|TIMEOUT|BACKLOG)(_|$)", re.IGNORECASE)


def constants() -> Iterator[str]:
    """Yield where each constant of the product is that sounds like a limit."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.parent.name in {"versions", "pages"}:
                # What has been migrated, and what writes a file of ours.
                continue
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for line in ast.parse(path.read_text()).body:
                target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
                if isinstance(target, ast.Name) and IS_LIMIT.search(target.id):
                    yield f"{module}:{target.id}"
    for section in SECTIONS:
        for one in fields(section):
            if IS_LIMIT.search(one.name) and one.default is not MISSING:
                yield f"models.settings:{section.__name__}.{one.name}"


def rates() -> Iterator[tuple[str, str]]:
    """Yield the name of each ``RateLimit``, and how much it allows."""
    for path in (ROOT / "run.py", *sorted((ROOT / "http_api").rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RateLimit":
                given = {one.arg: ast.literal_eval(one.value) for one in node.keywords}
                yield f"rate:{ast.literal_eval(node.args[1])}", f"{given['allowed']} in {given['window_s']} s"


RATES = dict(rates())


def value_of(where: str) -> float:
    module, _, name = where.partition(":")
    found = importlib.import_module(module)
    if "." not in name:
        return getattr(found, name)
    section, _, member = name.partition(".")
    [default] = [one.default for one in fields(getattr(found, section)) if one.name == member]
    return default


def shown(where: str, value: float) -> str:
    """Return a value as the page writes it, by the unit in its name."""
    name = where.rpartition(":")[2].rpartition(".")[2].upper()
    if re.search(r"_MS(_|$)", name):
        return f"{value / 1000:g} s" if value >= 1000 else f"{value:g} ms"
    if re.search(r"_S(_|$)", name) and "_PER_S" not in name:
        return f"{value:g} s"
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if re.search(r"LEN|BYTES|BODY|READ", name) and value >= size and value % size == 0:
            return f"{value // size:g} {unit}"
    return f"{value:,}"


def test_every_limit_is_on_the_page():
    assert sorted({*constants(), *RATES} - ROWS.keys()) == [], "add a row for each"


def test_the_page_lists_nothing_twice_and_each_row_is_understood():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) == len(ROWS)


@pytest.mark.parametrize("where", ROWS)
def test_the_page_tells_the_value_that_is_true(where: str):
    assert ROWS[where] == (RATES[where] if where.startswith("rate:") else shown(where, value_of(where)))
