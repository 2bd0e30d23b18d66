"""What a benchmark prints: tables with the machine they were measured on, and their place in ``docs/benchmarks.md``."""

import platform
import re
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "benchmarks.md"
OURS: Final = ("uvicorn", "uvloop", "websockets", "redis", "sqlalchemy")

Cell = str | float | None


def progress(what: str) -> None:
    """Tell whoever waits what is going on."""
    print(f"bench: {what}", file=sys.stderr, flush=True)


@dataclass
class Table:
    """Rows of cells; a number is shown with three significant digits, ``None`` as not measured."""

    title: str
    columns: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: Cell) -> None:
        """Add one row."""
        assert len(cells) == len(self.columns)
        self.rows.append(list(cells))

    def as_text(self) -> str:
        """Return the table for a terminal."""
        shown = [self.columns, *([show(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in shown) for column in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.ljust(width) if at == 0 else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in shown
        ]
        return "\n".join([self.title, "", *lines, "", *self.notes]).rstrip()

    def as_markdown(self) -> str:
        """Return the table for a page."""
        shown = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)]]
        shown += [[show(cell) for cell in row] for row in self.rows]
        lines = ["| " + " | ".join(row) + " |" for row in shown]
        return "\n".join([f"**{self.title}**", "", *lines, "", *(f"- {note}" for note in self.notes)]).rstrip()


def show(cell: Cell) -> str:
    """Return a cell as people read it."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if abs(cell) >= 100 or cell == int(cell):
        return f"{cell:,.0f}"
    return f"{cell:.3g}"


def compared(ours: float | None, theirs: float | None) -> str:
    """Return a peer's figure and how many times ours it is."""
    if theirs is None or not ours:
        return show(theirs)
    return f"{show(theirs)} (×{theirs / ours:.2g})"


@dataclass
class Report:
    """All tables of one benchmark run."""

    name: str
    tables: list[Table]
    versions: dict[str, str]
    """Of what took part besides our own Python packages: Redis, PostgreSQL, the peers."""

    def as_text(self) -> str:
        """Return it for a terminal."""
        return "\n\n".join([*(table.as_text() for table in self.tables), self._circumstances()])

    def write(self, page: Path = PAGE) -> None:
        """Put it in its place on the page, instead of what stood there; at the end if it has no place yet."""
        block = "\n\n".join([*(table.as_markdown() for table in self.tables), self._circumstances()])
        begin, end = f"<!-- bench {self.name} -->", f"<!-- end of bench {self.name} -->"
        placed = f"{begin}\n{block}\n{end}"
        text = page.read_text()
        found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        has_place = found.search(text) is not None
        page.write_text(found.sub(lambda _: placed, text) if has_place else f"{text.rstrip()}\n\n{placed}\n")

    def _circumstances(self) -> str:
        parts = {"Python": platform.python_version(), **{name: version(name) for name in OURS}, **self.versions}
        versions = ", ".join(f"{name} {number}" for name, number in parts.items())
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"Measured {when}{_commit()} on {_machine()}; {versions}."


def _machine() -> str:
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory_kb = int(re.findall(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[0])
    processor = models[0] if models else platform.machine()
    cores = f"{len(models)} cores" if models else "unknown cores"
    return f"{processor}, {cores}, {memory_kb / 2**20:.0f} GB, {platform.system()} {platform.release()}"


def _commit() -> str:
    asked = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return f" at {done.stdout.strip()}" if done.returncode == 0 else ""
