"""The numbers of all workers are one page, whoever is asked, and whoever hangs or has died."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from http_api import machine_numbers
from http_api.machine_numbers import MachineNumbers


class Process:
    """One worker process, with a registry of its own."""

    def __init__(self, folder: Path | None, number: int) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls_total", "Calls", ["route"], registry=self.registry)
        self.waits = Histogram("waits_seconds", "Waits", registry=self.registry, buckets=(1, 2))
        self.open = Gauge("open", "Open", registry=self.registry)
        self.owed = Gauge("pitlane_refunds_unfinished", "Owed", ["state"], registry=self.registry)
        self.numbers = MachineNumbers(folder, number)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch):
    """Lets a process do something as itself; returns what it shows, as values by series."""

    def shown(process: Process) -> dict[str, float]:
        monkeypatch.setattr(machine_numbers, "REGISTRY", process.registry)
        text = process.numbers.exposition().decode()
        return {name: float(value) for name, value in re.findall(r"^([a-z].*) (\S+)$", text, re.MULTILINE)}

    return shown


def test_one_process_shows_its_own_numbers(page) -> None:
    one = Process(None, 0)
    one.calls.labels("/").inc(3)
    found = page(one)
    assert (found['calls_total{route="/"}'], found["pitlane_workers"]) == (3.0, 1.0)


def test_several_are_added_up_and_what_all_read_from_one_place_is_not(page, tmp_path: Path) -> None:
    first, second = Process(tmp_path, 0), Process(tmp_path, 1)
    for process, calls in ((first, 3), (second, 4)):
        process.calls.labels("/").inc(calls)
        process.waits.observe(1.5)
        process.open.set(10)
        process.owed.labels("waiting").set(2)
        page(process)
    second.calls.labels("/other").inc()
    for asked in (second, first):
        found = page(asked)
        assert found['calls_total{route="/"}'] == 7
        assert found['calls_total{route="/other"}'] == 1
        assert (found['waits_seconds_bucket{le="2.0"}'], found["waits_seconds_count"], found["waits_seconds_sum"]) == (
            2,
            2,
            3,
        )
        assert found["open"] == 20
        assert found['pitlane_refunds_unfinished{state="waiting"}'] == 2
        assert found["pitlane_workers"] == 2


def test_what_a_dead_worker_has_counted_goes_on_counting_in_its_successor(page, tmp_path: Path) -> None:
    first, second = Process(tmp_path, 0), Process(tmp_path, 1)
    second.calls.labels("/").inc(4)
    second.open.set(10)
    page(second)
    for _ in range(2):
        # Dead, and started again; twice.
        second = Process(tmp_path, 1)
        second.calls.labels("/").inc(1)
        second.open.set(1)
        page(second)
    found = page(first)
    assert found['calls_total{route="/"}'] == 6
    assert found["open"] == 1


def test_of_a_worker_that_is_silent_only_what_it_has_counted_is_shown(page, tmp_path: Path, monkeypatch) -> None:
    first, second = Process(tmp_path, 0), Process(tmp_path, 1)
    second.calls.labels("/").inc(4)
    second.open.set(10)
    page(second)
    now_s = machine_numbers.monotonic()
    monkeypatch.setattr(machine_numbers, "monotonic", lambda: now_s + machine_numbers.SILENT_AFTER_S + 1)
    found = page(first)
    assert found['calls_total{route="/"}'] == 4
    assert found["open"] == 0
    assert found["pitlane_workers"] == 1


def test_a_folder_that_cannot_be_written_costs_nobody_the_page(page, tmp_path: Path) -> None:
    first = Process(tmp_path / "gone", 0)
    assert page(first)["pitlane_workers"] == 0
