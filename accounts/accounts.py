"""Who may sign in: accounts and their passwords."""

import hashlib
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
from anyio import CapacityLimiter
from msgspec import Struct, ValidationError, convert
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from accounts.passwords import SIDE_BY_SIDE, Hashing, hashed, is_too_long, matches, refusal_of
from accounts.revocations import GONE, SQL, mark_disabled, revoke_all
from infra.clock import Clock
from infra.database import Database
from infra.statements import Nothing, Statement, Transaction
from models.errors import ConfigurationError, PitlaneError
from models.ids import new_id
from models.outcomes import Refused
from models.rest import Email, Name, NewPassword
from models.tables import Account, DutyInterval, Mechanic
from models.text import NAME_LEN_MAX, is_clean, kept
from models.words import ProviderType, Role


@dataclass(frozen=True)
class Changed:
    """A row of ``disable_account`` and ``enable_account``."""

    id: str


@dataclass(frozen=True)
class ResetOf:
    """Whose password may be set."""

    account_id: str


DISABLE: Final = Statement(SQL / "disable_account.sql", Changed)
ENABLE: Final = Statement(SQL / "enable_account.sql", Changed)
DISABLE_MECHANIC: Final = Statement(SQL / "disable_mechanic.sql", Nothing)
CHANGE_PASSWORD: Final = Statement(SQL / "change_password.sql", Changed)
SET_PASSWORD: Final = Statement(SQL / "set_password.sql", Changed)
KEEP_RESET: Final = Statement(SQL / "keep_reset.sql", Nothing)
DROP_RESETS: Final = Statement(SQL / "drop_resets.sql", Nothing)
RESET_OF: Final = Statement(SQL / "reset_of.sql", ResetOf)
USE_RESET: Final = Statement(SQL / "use_reset.sql", ResetOf)
FORGET_RESETS: Final = Statement(SQL / "forget_resets.sql", Nothing)

RESET_MS: Final = 30 * 60_000
"""How long a link to a new password is good (contract)."""
RESETS_MAX: Final = 3
"""Links of one account that are good at a time, the newest."""

EMAIL_REFUSED: Final = Refused(
    "validation_failed", "Has characters that cannot be seen, or that turn text around.", member="email"
)
"""Two addresses that look the same must not be two accounts."""

IMPORT_TIMEOUT_S = 300.0
LOOK_UP_BATCH = 500


class _TooLate(Exception):
    """A link to a new password has just been used by somebody else; roll back."""


class NewAccountRefused(PitlaneError):
    """One of several accounts cannot be added; none of them was."""


@dataclass(frozen=True)
class NewAccount:
    """What it takes to make one. ``password`` ``None`` or empty: only tokens can use it."""

    role: Role
    email: str
    name: str
    password: str | None = None
    provider_type: ProviderType | None = None

    @classmethod
    def checked(cls, row: Mapping[str, str | None], where: str) -> "NewAccount":
        """Return the account that an operator wrote down in ``row``, or raise ``ConfigurationError`` naming ``where``."""
        try:
            fields = convert(
                {"role": row["role"], "email": row["email"], "name": row["name"], "password": row["password"] or None}
                | {"provider_type": row["provider_type"] or None},
                _OperatorsRow,
            )
        except ValidationError as error:
            what, _, member = str(error).partition(" - at `$.")
            raise ConfigurationError(f"{where}: {member.rstrip('`')}: {what}.") from error
        if fields.provider_type is not None and fields.role is not Role.MECHANIC:
            raise ConfigurationError(f"{where}: only a mechanic has a provider type.")
        return cls(fields.role, fields.email, fields.name, fields.password, fields.provider_type)


class _OperatorsRow(Struct):
    role: Role
    email: Email
    name: Name
    password: NewPassword | None
    provider_type: ProviderType | None


class Accounts:
    """Accounts in SQL; passwords are hashed in a worker thread, a few at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hashing = Hashing()

    async def add(self, new: NewAccount, *, now_ms: int) -> Account | Refused:
        """Add one account, or say ``email_taken``, or ``validation_failed`` for what cannot be kept."""
        name = _name_of(new)
        if isinstance(name, Refused):
            return name
        if not is_clean(new.email.strip()):
            return EMAIL_REFUSED
        password_hash: str | None = None
        if new.password:
            kept_as = await self._hashed(new.password, new.email)
            if isinstance(kept_as, Refused):
                return kept_as
            password_hash = kept_as
        account = _account(new, name, password_hash, now_ms=now_ms)
        try:
            async with self._database.write() as session:
                session.add(account)
                await session.flush()
                if account.role is Role.MECHANIC:
                    session.add_all(_mechanic(account, new))
        except IntegrityError:
            return Refused("email_taken", "There is already an account with this e-mail address.")
        return account

    async def add_all(self, news: Sequence[NewAccount], *, now_ms: int) -> list[Account]:
        """Add all of them, in order, or none: then ``NewAccountRefused`` says which one was in the way."""
        names: list[str] = []
        for new in news:
            name = _name_of(new)
            if isinstance(name, Refused):
                raise NewAccountRefused(f"The name of {new.email} cannot be kept. {name.detail}")
            if not is_clean(new.email.strip()):
                raise NewAccountRefused(f"{new.email!r} cannot be kept. {EMAIL_REFUSED.detail}")
            names.append(name)
        hashes: list[str | None] = [None] * len(news)

        side_by_side = CapacityLimiter(SIDE_BY_SIDE)
        why_not: list[Refused] = []

        async def hash_one(position: int, new: NewAccount) -> None:
            async with side_by_side:
                kept_as = await self._hashed(new.password or "", new.email)
            if isinstance(kept_as, Refused):
                why_not.append(Refused(kept_as.code, f"The password of {new.email} cannot be kept. {kept_as.detail}"))
                tasks.cancel_scope.cancel()
            else:
                hashes[position] = kept_as

        async with anyio.create_task_group() as tasks:
            for position, new in enumerate(news):
                if new.password:
                    tasks.start_soon(hash_one, position, new)
        if why_not:
            raise NewAccountRefused(why_not[0].detail)
        accounts = [
            _account(new, name, hashed, now_ms=now_ms) for new, name, hashed in zip(news, names, hashes, strict=True)
        ]
        mechanics = [
            row
            for account, new in zip(accounts, news, strict=True)
            if account.role is Role.MECHANIC
            for row in _mechanic(account, new)
        ]
        async with self._database.write(within_s=IMPORT_TIMEOUT_S) as session:
            if (taken := await _first_taken(session, [account.email for account in accounts])) is not None:
                raise NewAccountRefused(f"There is already an account with the e-mail address {taken}.")
            session.add_all(accounts)
            await session.flush()
            session.add_all(mechanics)
        return accounts

    async def find(self, account_id: str) -> Account | None:
        """Return the account, or ``None``."""
        async with self._database.read() as session:
            return await session.get(Account, account_id)

    async def find_by_email(self, email: str) -> Account | None:
        """Return the account with this address in any letter case, or ``None``."""
        # As it was kept by versions that did not compose it, too.
        wanted = [email.strip().lower(), normal_email(email)]
        async with self._database.read() as session:
            found = {
                one.email: one for one in await session.exec(select(Account).where(col(Account.email).in_(wanted)))
            }
        return found.get(wanted[0]) or found.get(wanted[1])

    async def rename(self, account_id: str, name: str) -> Account | Refused:
        """Give the account another name, or say why the name cannot be kept; ``unauthenticated`` if the account is gone."""
        text = kept(name, "name", len_max=NAME_LEN_MAX, is_optional=False)
        if isinstance(text, Refused):
            return text
        async with self._database.write() as session:
            account = await session.get(Account, account_id, with_for_update=True)
            if account is None or account.disabled_at_ms is not None:
                return GONE
            account.name = text
        return account

    async def set_disabled(self, account_id: str, is_disabled: bool, *, now_ms: int) -> bool:
        """Let nobody use an account any more, or its owner again; ``False`` if there is no such account, or
        it has been erased. Idempotent.

        Its tokens are revoked either way. Whoever calls tells ``Revocations``, and dispatch that the account departs.
        """

        def work() -> Transaction[None]:
            changed = yield from (DISABLE(id=account_id, at_ms=now_ms) if is_disabled else ENABLE(id=account_id))
            if changed:
                yield from DISABLE_MECHANIC(id=account_id, is_disabled=is_disabled)
                yield from mark_disabled(account_id, is_disabled, now_ms=now_ms)

        account = await self.find(account_id)
        if account is None or (account.erased_at_ms is not None and not is_disabled):
            return False
        await self._database.commit(work())
        return True

    async def sign_in(self, email: str, password: str) -> Account | None:
        """Return the account if the password is right; takes as long whether or not there is such an account.

        Raises ``Overloaded`` if too many sign in just now.
        """
        account = await self.find_by_email(email)
        return account if await self._matches(account, password) else None

    # --- passwords ----------------------------------------------------------------------------------------------------

    async def proves(self, account_id: str, password: str) -> Account | None:
        """Return the account if this is its password; for somebody who is signed in and about to do what cannot be undone."""
        account = await self.find(account_id)
        return account if await self._matches(account, password) else None

    async def change_password(self, account: Account, password: str, clock: Clock) -> int | Refused:
        """Give an account another password, and refuse all its tokens from before; return up to which instant those were issued.

        ``account`` as it was read: of two changes side by side one comes too late. It has the new password afterwards. Links to a
        new password are void. Raises ``Overloaded``.
        """
        if account.disabled_at_ms is not None:
            return Refused("bad_credentials", "The account is disabled; enable it first.")
        kept_as = await self._hashed(password, account.email)
        if isinstance(kept_as, Refused):
            return kept_as

        def work() -> Transaction[int | None]:
            changed = yield from CHANGE_PASSWORD(
                id=account.id, password_hash=kept_as, before=account.password_hash or ""
            )
            return (yield from self._started_anew(account.id, clock)) if changed else None

        revoked_up_to_ms = await self._database.commit(work())
        if revoked_up_to_ms is None:
            return Refused("bad_credentials", "The password has just been changed elsewhere.")
        account.password_hash = kept_as
        return revoked_up_to_ms

    async def begin_reset(self, email: str, *, now_ms: int) -> tuple[Account, str] | None:
        """Return an account and a token by which its password can be set once; ``None`` if there is none that may.

        Of its tokens the newest few are good.
        """
        account = await self.find_by_email(email)
        if account is None or account.disabled_at_ms is not None or account.password_hash is None:
            return None
        token = secrets.token_urlsafe(32)

        def work() -> Transaction[None]:
            yield from KEEP_RESET(id=_digest(token), account_id=account.id, expires_at_ms=now_ms + RESET_MS)
            yield from DROP_RESETS(account_id=account.id, now_ms=now_ms, kept=RESETS_MAX)

        await self._database.commit(work())
        return account, token

    async def reset_password(self, token: str, password: str, clock: Clock) -> tuple[Account, int] | Refused:
        """Set the password that a mail has let somebody choose, once, and refuse all tokens of the account from before.

        Returns the account, and up to which instant those were issued. A password that cannot be kept does not use the token up.
        Raises ``Overloaded``.
        """
        unknown = Refused("bad_reset_token", "This link has been used, or is too old. Ask for another one.")
        found = await self._database.query(RESET_OF(id=_digest(token), now_ms=clock.now_ms()))
        account = await self.find(found[0].account_id) if found else None
        if account is None or account.disabled_at_ms is not None:
            return unknown
        kept_as = await self._hashed(password, account.email)
        if isinstance(kept_as, Refused):
            return kept_as

        def work() -> Transaction[int | None]:
            if not (yield from SET_PASSWORD(id=account.id, password_hash=kept_as)):
                return None
            if not (yield from USE_RESET(id=_digest(token), now_ms=clock.now_ms())):
                raise _TooLate
            return (yield from self._started_anew(account.id, clock))

        try:
            revoked_up_to_ms = await self._database.commit(work())
        except _TooLate:
            return unknown
        if revoked_up_to_ms is None:
            return unknown
        account.password_hash = kept_as
        return account, revoked_up_to_ms

    def _started_anew(self, account_id: str, clock: Clock) -> Transaction[int]:
        """Void what the password before has opened, in a transaction that has just written another one."""
        yield from FORGET_RESETS(account_id=account_id)
        # Not before: tokens are issued until the row is locked.
        now_ms = clock.now_ms()
        yield from revoke_all(account_id, now_ms=now_ms)
        return now_ms

    async def _matches(self, account: Account | None, password: str) -> bool:
        kept = account.password_hash if account is not None else None
        # One that is too long for anybody's is looked at as long as any other.
        look = partial(matches, kept, "" if is_too_long(password) else password)
        return await self._hashing.run(look, is_sign_in=True)

    async def _hashed(self, password: str, email: str) -> str | Refused:
        return await self._hashing.run(partial(_judged_and_hashed, password, email))


def _judged_and_hashed(password: str, email: str) -> str | Refused:
    """Return the hash, or why the password cannot be kept. Work for a thread."""
    why_not = refusal_of(password, email=email)
    return hashed(password) if why_not is None else Refused("validation_failed", why_not, member="password")


def _digest(token: str) -> str:
    """Return what stands for a token in SQL: whoever reads there shall not be able to use it."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _name_of(new: NewAccount) -> str | Refused:
    return kept(new.name, "name", len_max=NAME_LEN_MAX, is_optional=False)


def _account(new: NewAccount, name: str, password_hash: str | None, *, now_ms: int) -> Account:
    return Account(
        id=new_id(),
        role=new.role,
        email=normal_email(new.email),
        name=name,
        password_hash=password_hash,
        created_at_ms=now_ms,
    )


def _mechanic(account: Account, new: NewAccount) -> tuple[Mechanic, DutyInterval]:
    """Return what else there is to store of a mechanic: on duty they are from the beginning."""
    mechanic = Mechanic(id=account.id, provider_type=new.provider_type or "independent")
    return mechanic, DutyInterval(mechanic_id=account.id, started_at_ms=account.created_at_ms)


async def _first_taken(session: AsyncSession, emails: Sequence[str]) -> str | None:
    """Return the first address that an account has already, or that stands twice among ``emails``; else ``None``."""
    taken: set[str] = set()
    for start in range(0, len(emails), LOOK_UP_BATCH):
        batch = emails[start : start + LOOK_UP_BATCH]
        taken |= set(await session.exec(select(Account.email).where(col(Account.email).in_(batch))))
    for email in emails:
        if email in taken:
            return email
        taken.add(email)
    return None


def normal_email(email: str) -> str:
    """Return the address as it is kept and compared: in small letters, as NFC."""
    return unicodedata.normalize("NFC", email.strip().lower())
