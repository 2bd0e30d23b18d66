"""Thousands of histories of nodes that die, lose their messages and forget; and planted bugs that must not get through.

The deep profile plays ten thousand seeds; a seed that fails is replayed by ``python -m tests.simulation SEED``.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import anyio.lowlevel
import pytest
from hypothesis import settings

from dispatch import effects, elapsing, request_store
from dispatch.awaited import Awaited
from dispatch.elapsing import Elapsing
from dispatch.money import ledger
from dispatch.money.refunds import Refunds
from dispatch.notices import RequestChanged
from dispatch.outbox import Message, Outbox
from dispatch.request import AnotherWanted, Event, Exclude, Free, MechanicAccepted, Record, Request, step
from infra.statements import Transaction
from models.outcomes import Refused
from tests.simulation import after_accept, invariants, sql
from tests.simulation.sql import Kind
from tests.simulation.world import Run, play

IS_DEEP = settings.get_current_profile_name() == "deep"
SEEDS = 10_000 if IS_DEEP else 300
PER_TEST = 10
PLANTED_SEEDS_MAX = 300
RARELY_SEEN_FROM = 330
RARELY_SEEDS_MAX = 1_000
"""One world in a hundred notices."""
TRACE_TAIL_LEN = 60
# What Stripe refuses is counted, as bugs are, which the watch looks for by itself.
pytestmark = [pytest.mark.timeout(600), pytest.mark.bugs_planted]
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
    return patch.object(Elapsing, "_reconcile", lambda _self: anyio.sleep_forever())


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


@contextmanager
def without_time_limits_on_the_clock() -> Any:
    """Whoever has accepted or started has a time limit in SQL, and nobody looks at it."""
    forgetful = copy(elapsing.OPEN_DEADLINES)
    forgetful.sqlite = forgetful.sqlite.replace("IN ('accepted', 'in_progress')", "IN ()")
    assert forgetful.sqlite != elapsing.OPEN_DEADLINES.sqlite
    never = patch.object(effects, "_on_and_off_the_clock", lambda _before, _after: (None, None))
    with patch.object(elapsing, "OPEN_DEADLINES", forgetful), never:
        yield


@contextmanager
def no_shows_without(forgotten: type[Exclude | Free]) -> Any:
    """One of the things that follow when somebody has not started in time does not."""

    def forgetful_step(request: Request, event: Event, **more: Any) -> Any:
        outcome = step(request, event, **more)
        if isinstance(outcome, Refused):
            return outcome
        after, commands = outcome
        if not any(isinstance(command, Record) and command.event == "no_show" for command in commands):
            return outcome
        if forgotten is Exclude:
            after = replace(after, excluded=request.excluded)
        return after, [command for command in commands if not isinstance(command, forgotten)]

    with patch.object(request_store, "step", forgetful_step):
        yield


@contextmanager
def accepts_without_a_time_limit() -> Any:
    """Whoever accepts may take as long as they like, and nobody looks for missing limits."""

    def forgetful_step(request: Request, event: Event, **more: Any) -> Any:
        outcome = step(request, event, **more)
        if isinstance(outcome, Refused) or not isinstance(event, MechanicAccepted):
            return outcome
        after, commands = outcome
        return replace(after, limit=None), commands

    never = patch.object(Elapsing, "_set_missing_limits", lambda _self: anyio.lowlevel.checkpoint())
    with patch.object(request_store, "step", forgetful_step), never:
        yield


def wishes_that_mean_nobody() -> AbstractContextManager[Any]:
    """Another mechanic is found in place of whoever has the request when the wish arrives."""

    def careless_step(request: Request, event: Event, **more: Any) -> Any:
        return step(request, AnotherWanted() if isinstance(event, AnotherWanted) else event, **more)

    return patch.object(request_store, "step", careless_step)


def without_the_next_keys() -> AbstractContextManager[Any]:
    """A refund is asked for under its first key for ever, whatever Stripe has answered."""
    return patch.object(Refunds, "_use_up_key", lambda _self, _refund, _errors_max: anyio.lowlevel.checkpoint())


def without_asking_what_is_left() -> AbstractContextManager[Any]:
    """What was paid is asked for, whatever others have given back of it."""
    return patch.object(ledger.Ledger, "left_cents", property(lambda self: self.paid_cents))


def without_the_turned_favorites() -> AbstractContextManager[Any]:
    """Whoever waits for a favourite believes for ever what was true when they began to wait."""
    return patch.object(Awaited, "_tell", lambda _self, _waiting: anyio.lowlevel.checkpoint())


@pytest.mark.parametrize(
    ("plant", "kind", "invariant"),
    [
        # SQLite has one writer at a time: there it takes another kind of database for this bug to do harm.
        (without_the_condition, "postgresql", invariants.ONE_MECHANIC),
        (without_the_reconciler, None, invariants.EVERY_WINDOW_ENDS),
        (told_before_the_commit, None, invariants.NOT_BEFORE),
        (without_time_limits_on_the_clock, None, invariants.EVERY_LIMIT_ENDS),
        (accepts_without_a_time_limit, None, after_accept.LIMITED),
        (partial(no_shows_without, Free), None, after_accept.BUSY),
        (partial(no_shows_without, Exclude), None, after_accept.NOT_AGAIN),
        (wishes_that_mean_nobody, None, after_accept.ONE_WISH),
        (without_the_turned_favorites, None, invariants.FAVORITES),
        (without_the_next_keys, None, invariants.REFUNDS),
        (without_asking_what_is_left, None, invariants.REFUNDS),
    ],
    ids=[
        "without_the_condition",
        "without_the_reconciler",
        "told_before_the_commit",
        "without_time_limits_on_the_clock",
        "accepts_without_a_time_limit",
        "no_show_not_freed",
        "no_show_asked_again",
        "wishes_that_mean_nobody",
        "without_the_turned_favorites",
        "without_the_next_keys",
        "without_asking_what_is_left",
    ],
)
def test_a_planted_bug_is_found(
    plant: Callable[[], AbstractContextManager[Any]], kind: Kind | None, invariant: str, sqlite_template: Path
) -> None:
    seeds: Sequence[int] = range(PLANTED_SEEDS_MAX)
    if invariant == invariants.FAVORITES:
        # Nobody waits for a favourite any more in most worlds once all is calm. First those where it was seen the last time.
        seeds = [*range(RARELY_SEEN_FROM, RARELY_SEEDS_MAX), *range(RARELY_SEEN_FROM)]
    with plant():
        for seed in seeds:
            if invariant in play(seed, sqlite_template, kind).broken:
                return
    pytest.fail(f"{len(seeds)} seeds, and nobody noticed")
