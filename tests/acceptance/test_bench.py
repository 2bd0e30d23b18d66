"""The benchmarks work: each is run at a tiny size, and nothing is said about how fast it was."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import command
from benchmarks.report import Report, Table
from tests.acceptance.servers import ROOT

TINY = ["--quick", "--connections", "40", "--windows", "20", "--duration", "0.2", "--repeats", "1"]
ALONE = ["--without-peers", "--database", "SQLite"]
PATIENCE_S = 280


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "run.py", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.timeout(PATIENCE_S + 20)
def test_each_benchmark_prints_its_tables_and_says_what_was_left_out() -> None:
    done = bench("presence", "presence-soak", "dispatch", "transitions", "webhook", *TINY, *ALONE)
    assert done.returncode == 0, done.stderr
    for row in (
        "server CPU per heartbeat",
        "mechanic connects on one server → customer's socket on another",
        "Redis' share of a core",
        "Pitlane on SQLite, to the customer's socket",
        "from the wish to the last socket",
        "accept → customer's update",
        "SQLite: a window ends by itself",
        "SQLite, checkout.session.completed",
    ):
        assert row in done.stdout
    assert done.stdout.count("Measured ") == 5
    assert "The peers are skipped: --without-peers." in done.stdout
    assert "PostgreSQL is skipped: --database SQLite." in done.stdout


@pytest.mark.timeout(PATIENCE_S + 20)
def test_a_siege_and_a_fuzz_of_frames_come_to_their_end() -> None:
    done = bench("hostile", "frames", "--quick", "--connections", "40", "--duration", "0.5")
    assert done.returncode == 0, done.stderr
    assert "signed in: heartbeat on an open socket" in done.stdout
    assert "frames and noises sent" in done.stdout


def test_a_benchmark_that_does_not_exist_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["nothing"]) == 2
    [sentence] = capsys.readouterr().err.splitlines()
    assert "'nothing'" in sentence
    assert "presence-soak" in sentence


def test_figures_written_again_replace_those_before(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\nWords.\n")
    for figure in (1.0, 12_345.6):
        table = Table("A table", ["", "Pitlane"])
        table.add("a row", figure)
        Report("presence", [table], {}).write(page)
    text = page.read_text()
    assert text.startswith("# Benchmarks\n\nWords.\n")
    assert text.count("**A table**") == 1
    assert "| a row | 12,346 |" in text
