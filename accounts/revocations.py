"""What is refused although its signature is good: tokens that were signed out, and accounts that are disabled.

SQL keeps the list; each node has it in memory, so that checking a token asks nobody. A node that changes the list tells the others
over the bus, which only makes them look: what they then read is SQL's. They look every two seconds besides, so that whoever has no
voice there (the command line, a node without Redis) is heard within five.

A look reads what has changed since the one before. Changes are stamped: with an instant, but always one later than all stamps that
are there, so that the clock of whoever writes need not be right. Transactions side by side may show in another order than they were
stamped. So what was stamped shortly before the newest is read again, until nothing has come for longer than a transaction can take.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

import anyio
import structlog

from infra.bus import Bus
from infra.clock import Clock
from infra.database import Database
from infra.loops import failing_alone, keep_on
from infra.redis_link import RedisLink
from infra.statements import Nothing, Statement, Transaction
from models.errors import Unavailable
from models.outcomes import Refused

SQL: Final = Path(__file__).parent / "sql"
GONE: Final = Refused("unauthenticated", "This account does not exist any more.")
POLL_S: Final = 2.0
OVERLAP_MS: Final = 120_000
"""Longer than a transaction takes from its stamp to its commit."""
RENEWING_MS: Final = 60_000
"""Longer than it takes to renew a token, from looking at the present one to making the next."""


@dataclass(frozen=True)
class Proof:
    """What a valid token says of itself, as far as it may have been revoked.

    ``issued_at_ms``: when its device was signed in; renewing changes that no more than ``sign_in_id``, which is the device's.
    Tokens that others make have no ``sign_in_id``, and say when they were issued.
    """

    account_id: str
    token_id: str
    issued_at_ms: int
    expires_at_ms: int
    sign_in_id: str | None = None

    @property
    def revocable_id(self) -> str:
        """What is revoked when this one is signed out: all tokens of the device, renewed ones and their forerunners."""
        return self.sign_in_id or self.token_id


@dataclass(frozen=True)
class Revoked:
    """A row of ``revoked_since``."""

    id: str
    account_id: str
    up_to_ms: int | None
    is_disabled: bool
    token_expires_at_ms: int | None
    changed_at_ms: int = 0
    """Its stamp."""


@dataclass(frozen=True)
class Ended:
    """A row of ``end_sign_in``."""

    expires_at_ms: int


@dataclass(frozen=True)
class Found:
    """A row of the statements that only find something."""

    id: str


HOLD_ACCOUNT: Final = Statement(SQL / "hold_account.sql", Found)
LOCK_ACCOUNT: Final = Statement(SQL / "lock_account.sql", Found)
IS_REVOKED: Final = Statement(SQL / "is_revoked.sql", Found)
REVOKE_TOKEN: Final = Statement(SQL / "revoke_token.sql", Nothing)
REVOKE_ACCOUNT: Final = Statement(SQL / "revoke_account.sql", Nothing)
MARK_DISABLED: Final = Statement(SQL / "mark_disabled.sql", Nothing)
REVOKED_SINCE: Final = Statement(SQL / "revoked_since.sql", Revoked)
END_SIGN_INS: Final = Statement(SQL / "end_sign_ins.sql", Nothing)
END_SIGN_IN: Final = Statement(SQL / "end_sign_in.sql", Ended)


class RevokedList:
    """The list itself: what a node remembers. Pure but for being changed."""

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {}
        """By id, until when it must be remembered."""
        self._accounts: dict[str, int] = {}
        """Up to which instant an account's tokens are refused."""
        self._disabled: set[str] = set()

    def __len__(self) -> int:
        return len(self._tokens) + len(self._accounts)

    def covers(self, proof: Proof) -> bool:
        """Tell whether a token is refused."""
        return (
            proof.account_id in self._disabled
            or proof.issued_at_ms <= self._accounts.get(proof.account_id, -1)
            or proof.token_id in self._tokens
            or (proof.sign_in_id is not None and proof.sign_in_id in self._tokens)
        )

    def take_in(self, rows: Iterable[Revoked]) -> set[str]:
        """Learn rows; return the accounts of those that were news."""
        changed = set()
        for row in rows:
            if row.up_to_ms is None:
                token_id = row.id.removeprefix("token:")
                is_news = token_id not in self._tokens
                self._tokens[token_id] = row.token_expires_at_ms or 0
            else:
                before = self._accounts.get(row.account_id), row.account_id in self._disabled
                self._accounts[row.account_id] = row.up_to_ms
                (self._disabled.add if row.is_disabled else self._disabled.discard)(row.account_id)
                is_news = before != (row.up_to_ms, row.is_disabled)
            if is_news:
                changed.add(row.account_id)
        return changed

    def forget_ended(self, now_ms: int) -> None:
        """Forget tokens that have ended by themselves."""
        ended = [token_id for token_id, expires_at_ms in self._tokens.items() if expires_at_ms <= now_ms]
        for token_id in ended:
            del self._tokens[token_id]


class Mark:
    """From which stamp on to read, by those that were read. Pure but for being changed."""

    def __init__(self) -> None:
        self._newest_ms = -1
        self._came_at_s = 0.0

    def since_ms(self, now_s: float) -> int:
        """Return from which stamp on there may be something new; 0 at first: everything. ``now_s``: by any steady clock."""
        is_quiet = (now_s - self._came_at_s) * 1000 > OVERLAP_MS
        return max(0, self._newest_ms + 1 if is_quiet else self._newest_ms - OVERLAP_MS)

    def note(self, rows: Iterable[Revoked], now_s: float) -> None:
        """Take note of what was read."""
        newest_ms = max((row.changed_at_ms for row in rows), default=-1)
        if newest_ms > self._newest_ms:
            self._newest_ms, self._came_at_s = newest_ms, now_s


class Revocations:
    """The list of a node, kept up to date. Every method that waits raises ``DatabaseUnavailable``."""

    def __init__(
        self, database: Database, clock: Clock, bus: Bus, link: RedisLink, *, token_lifetime_s: int = 7 * 24 * 3600
    ) -> None:
        """``token_lifetime_s``: of those that we make. For as long it is remembered that a device was signed out."""
        self._database = database
        self._remembered_ms = token_lifetime_s * 1000 + RENEWING_MS
        self._clock = clock
        self._bus = bus
        self._channel = link.key("revocations", "changed")
        self._list = RevokedList()
        self._mark = Mark()
        self._told = anyio.Event()
        self._reading = anyio.Lock()
        self._handlers: list[Callable[[set[str]], None]] = []
        self._log = structlog.get_logger("revocations")

    def covers(self, proof: Proof) -> bool:
        """Tell whether a token is refused; asks nobody."""
        return self._list.covers(proof)

    def on_change(self, handler: Callable[[set[str]], None]) -> None:
        """Call ``handler`` with the ids of the accounts of which something has been revoked, as soon as this node knows."""
        self._handlers.append(handler)

    async def revoke_token(self, proof: Proof) -> None:
        """Refuse a token from now on, and all others of its device; idempotent."""
        await self._database.commit(self._revoke_token(proof.account_id, proof.revocable_id, proof.expires_at_ms))
        await self.tell()

    async def revoke_sign_in(self, account_id: str, sign_in_id: str) -> bool:
        """Sign out one device of an account; ``False`` if it is not signed in there."""

        def work() -> Transaction[bool]:
            ended = yield from END_SIGN_IN(account_id=account_id, id=sign_in_id)
            for sign_in in ended:
                yield from self._revoke_token(account_id, sign_in_id, sign_in.expires_at_ms)
            return bool(ended)

        is_done = await self._database.commit(work())
        if is_done:
            await self.tell()
        return is_done

    async def revoke_all(self, account_id: str) -> int:
        """Refuse all tokens of an account that have been issued until now; return that instant, in ms since the epoch."""
        now_ms = await self._database.commit(sign_out(account_id, self._clock))
        await self.tell()
        return now_ms

    async def tell(self) -> None:
        """Take in what this node has just committed, and have the others do so at once; they will anyway, a little later."""
        try:
            await self.refresh()
            await self._bus.publish(self._channel, b"changed")
        except Unavailable as error:
            # It is committed; everybody looks for it within two seconds.
            self._log.warning("revocation_told_late", error=str(error))

    async def refresh(self) -> None:
        """Read what has changed since the last time."""
        async with self._reading:
            now_ms, began_s = self._clock.now_ms(), monotonic()
            rows = await self._database.query(REVOKED_SINCE(since_ms=self._mark.since_ms(began_s), now_ms=now_ms))
            self._mark.note(rows, began_s)
            self._list.forget_ended(now_ms)
            changed = self._list.take_in(rows)
        if changed:
            for handler in self._handlers:
                # It is no news the next time: whoever fails now keeps nobody else from hearing it.
                with failing_alone("revocations"):
                    handler(changed)

    async def run(self) -> None:
        """Keep the list up to date until cancelled."""
        await self._bus.subscribe(self._channel, handler=lambda _payload: self._look_now())
        self._bus.on_gap(self._look_now)
        await keep_on("revocations", self._keep_up)

    def _look_now(self) -> None:
        self._told.set()

    async def _keep_up(self) -> None:
        with anyio.move_on_after(POLL_S):
            await self._told.wait()
        self._told = anyio.Event()
        await self.refresh()

    def _revoke_token(self, account_id: str, token_id: str, expires_at_ms: int) -> Transaction[None]:
        now_ms = self._clock.now_ms()
        yield from REVOKE_TOKEN(
            id=f"token:{token_id}",
            account_id=account_id,
            # Its device may have a newer token than this, or be getting one from a node that has not heard of this yet.
            token_expires_at_ms=max(expires_at_ms, now_ms + self._remembered_ms),
            at_ms=now_ms,
        )
        yield from END_SIGN_IN(account_id=account_id, id=token_id)


def sign_out(account_id: str, clock: Clock) -> Transaction[int]:
    """Sign an account out everywhere; return up to which instant its tokens are refused, in ms since the epoch."""
    yield from LOCK_ACCOUNT(id=account_id)
    now_ms = clock.now_ms()
    yield from revoke_all(account_id, now_ms=now_ms)
    return now_ms


def still_here(account_id: str) -> Transaction[bool]:
    """Tell whether an account may be used, and keep it so until the transaction ends.

    For whatever writes down something of somebody who may be erasing their account in another tab: a token that is refused by now
    was looked at before.
    """
    return bool((yield from HOLD_ACCOUNT(id=account_id)))


def is_revoked(proof: Proof) -> Transaction[bool]:
    """Tell whether a token is refused, whatever this node has heard of it."""
    found = yield from IS_REVOKED(
        account_revocation=f"account:{proof.account_id}",
        token_revocation=f"token:{proof.token_id}",
        sign_in_revocation=f"token:{proof.sign_in_id or proof.token_id}",
        issued_at_ms=proof.issued_at_ms,
    )
    return bool(found)


def revoke_all(account_id: str, *, now_ms: int, kept_sign_in_id: str = "") -> Transaction[None]:
    """Refuse all tokens of an account that have been issued until ``now_ms``, as a part of a transaction.

    Whoever calls has the account's row locked, and looks at the clock afterwards: a token that somebody is just getting
    (``SignIns``) is then either issued before ``now_ms``, or not at all.
    ``kept_sign_in_id``: the device that is about to get a fresh token, and stays on the list of devices.
    """
    yield from REVOKE_ACCOUNT(id=f"account:{account_id}", account_id=account_id, up_to_ms=now_ms, at_ms=now_ms)
    yield from END_SIGN_INS(account_id=account_id, kept_id=kept_sign_in_id)


def mark_disabled(account_id: str, is_disabled: bool, *, now_ms: int) -> Transaction[None]:
    """Refuse an account's tokens whenever they are issued, or only those until ``now_ms``; a part of a transaction."""
    yield from revoke_all(account_id, now_ms=now_ms)
    yield from MARK_DISABLED(id=f"account:{account_id}", is_disabled=is_disabled)
