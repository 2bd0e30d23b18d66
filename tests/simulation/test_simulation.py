"""Thousands of histories of nodes that die, lose their messages and forget; and three planted bugs that must not get through.

The deep profile plays ten thousand seeds; a seed that fails is replayed by ``python -m tests.simulation SEED``.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import pytest
from hypothesis import settings

from dispatch import request_store
from dispatch.notices import RequestChanged
from dispatch.outbox import Message, Outbox
from dispatch.service import Dispatch
from infra.statements import Transaction
from tests.simulation import invariants, sql
from tests.simulation.sql import Kind
from tests.simulation.world import Run, play

IS_DEEP = settings.get_current_profile_name() == "deep"
SEEDS = 10_000 if IS_DEEP else 300
PER_TEST = 10
PLANTED_SEEDS_MAX = 150
TRACE_TAIL_LEN = 60
pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parent.parent.parent


def told(run: Run) -> str:
    """Say what went wrong, what happened last, and how to see it all again."""
    wrong = "\n".join(f"  {invariant}: {what}" for invariant, what in run.violations)
    tail = "\n".join(run.trace[-TRACE_TAIL_LEN:])
    return f"seed {run.seed}\n{wrong}\n{tail}\nreplay: .venv/bin/python -m tests.simulation {run.seed}"


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_whatever_happens_the_promises_hold(first: int, sqlite_template: Path) -> None:
    for seed in range(first, first + PER_TEST):
        run = play(seed, sqlite_template)
        assert not run.violations, told(run)


def test_a_seed_is_a_whole_history(sqlite_template: Path) -> None:
    first, again = (play(7, sqlite_template) for _ in range(2))
    assert first.trace == again.trace
    assert play(8, sqlite_template).trace != first.trace


def test_a_seed_that_failed_here_fails_alike_in_another_process(sqlite_template: Path) -> None:
    # Another process has other hashes and other addresses; none of them may decide who is first.
    run = play(7, sqlite_template)
    command = [sys.executable, "-m", "tests.simulation", "7"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    assert shown.stdout.splitlines()[: len(run.trace)] == run.trace


# --- planted bugs -----------------------------------------------------------------------------------------------------


@contextmanager
def without_the_condition() -> Any:
    """Nobody locks the request, and the update takes place whatever has become of it since it was read."""

    forgetful = copy(request_store.MOVE_REQUEST)
    forgetful.sqlite = re.sub(r"version = (\S+) AND status = (\S+)", r"\1 <> \2", forgetful.sqlite)
    with patch.object(request_store, "MOVE_REQUEST", forgetful), patch.object(sql, "LOCKING", frozenset()):
        yield


def without_the_reconciler() -> AbstractContextManager[Any]:
    """What Redis has forgotten stays forgotten."""
    return patch.object(Dispatch, "_reconcile", lambda _self: anyio.sleep_forever())


@contextmanager
def told_before_the_commit() -> Any:
    """That a request has changed is told as soon as it is written, and not once it has been committed."""
    add, post = Outbox.add, Outbox.post

    def add_and_tell(self: Outbox, messages: list[Message]) -> Transaction[None]:
        yield from add(self, messages)
        post(self, [message for message in messages if isinstance(message.notice, RequestChanged)])

    def post_the_others(self: Outbox, messages: list[Message]) -> None:
        post(self, [message for message in messages if not isinstance(message.notice, RequestChanged)])

    with patch.object(Outbox, "add", add_and_tell), patch.object(Outbox, "post", post_the_others):
        yield


@pytest.mark.bugs_planted
@pytest.mark.parametrize(
    ("plant", "kind", "invariant"),
    [
        # SQLite has one writer at a time: there it takes another kind of database for this bug to do harm.
        (without_the_condition, "postgresql", invariants.ONE_MECHANIC),
        (without_the_reconciler, None, invariants.EVERY_WINDOW_ENDS),
        (told_before_the_commit, None, invariants.NOT_BEFORE),
    ],
    ids=["without_the_condition", "without_the_reconciler", "told_before_the_commit"],
)
def test_a_planted_bug_is_found(
    plant: Callable[[], AbstractContextManager[Any]], kind: Kind | None, invariant: str, sqlite_template: Path
) -> None:
    with plant():
        for seed in range(PLANTED_SEEDS_MAX):
            if invariant in play(seed, sqlite_template, kind).broken:
                return
    pytest.fail(f"{PLANTED_SEEDS_MAX} seeds, and nobody noticed")
