"""Who may sign in: accounts and their passwords."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import anyio
import anyio.to_thread
from anyio import CapacityLimiter
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Struct, ValidationError, convert
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from accounts.revocations import SQL, mark_disabled
from infra.database import Database
from infra.statements import Nothing, Statement, Transaction
from models.errors import ConfigurationError, PitlaneError
from models.ids import new_id
from models.outcomes import Refused
from models.rest import Email, Name, Password
from models.tables import Account, DutyInterval, Mechanic
from models.text import NAME_LEN_MAX, kept
from models.words import ProviderType, Role

_hasher = PasswordHasher()


@cache
def _nobody() -> str:
    """A hash that no password matches on purpose, made when it is first needed: it costs what every hash costs."""
    return _hasher.hash("nobody's password")


@dataclass(frozen=True)
class Changed:
    """A row of ``disable_account`` and ``enable_account``."""

    id: str


DISABLE: Final = Statement(SQL / "disable_account.sql", Changed)
ENABLE: Final = Statement(SQL / "enable_account.sql", Changed)
DISABLE_MECHANIC: Final = Statement(SQL / "disable_mechanic.sql", Nothing)

IMPORT_TIMEOUT_S = 300.0
LOOK_UP_BATCH = 500
HASHES_SIDE_BY_SIDE = 2
"""Argon2 takes 64 MiB and a core for some 50 ms; more side by side would only slow everything else."""


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
    password: Password | None
    provider_type: ProviderType | None


class Accounts:
    """Accounts in SQL; passwords are hashed in a worker thread, a few at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hashing = CapacityLimiter(HASHES_SIDE_BY_SIDE)

    async def add(self, new: NewAccount, *, now_ms: int) -> Account | Refused:
        """Add one account, or say ``email_taken``, or ``validation_failed`` for a name that cannot be kept."""
        name = _name_of(new)
        if isinstance(name, Refused):
            return name
        hashed = await self._hashed(new.password) if new.password else None
        account = _account(new, name, hashed, now_ms=now_ms)
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
            names.append(name)
        hashes: list[str | None] = [None] * len(news)

        async def hash_one(position: int, password: str) -> None:
            hashes[position] = await self._hashed(password)

        async with anyio.create_task_group() as tasks:
            for position, new in enumerate(news):
                if new.password:
                    tasks.start_soon(hash_one, position, new.password)
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
        async with self._database.read() as session:
            return (await session.exec(select(Account).where(Account.email == normal_email(email)))).first()

    async def rename(self, account_id: str, name: str) -> Account | Refused:
        """Give the account another name, or say why the name cannot be kept; ``unauthenticated`` if the account is gone."""
        text = kept(name, "name", len_max=NAME_LEN_MAX, is_optional=False)
        if isinstance(text, Refused):
            return text
        async with self._database.write() as session:
            account = await session.get(Account, account_id, with_for_update=True)
            if account is None:
                return Refused("unauthenticated", "This account is gone.")
            account.name = text
        return account

    async def set_disabled(self, account_id: str, is_disabled: bool, *, now_ms: int) -> bool:
        """Let nobody use an account any more, or its owner again; ``False`` if there is no such account. Idempotent.

        Its tokens are revoked either way. Whoever calls tells ``Revocations``, and dispatch that the account departs.
        """

        def work() -> Transaction[None]:
            changed = yield from (DISABLE(id=account_id, at_ms=now_ms) if is_disabled else ENABLE(id=account_id))
            if changed:
                yield from DISABLE_MECHANIC(id=account_id, is_disabled=is_disabled)
                yield from mark_disabled(account_id, is_disabled, now_ms=now_ms)

        if await self.find(account_id) is None:
            return False
        await self._database.commit(work())
        return True

    async def sign_in(self, email: str, password: str) -> Account | None:
        """Return the account if the password is right; takes as long whether or not there is such an account."""
        account = await self.find_by_email(email)
        expected = account.password_hash if account else None
        matches = await anyio.to_thread.run_sync(_matches, expected, password, limiter=self._hashing)
        return account if expected and matches else None

    async def _hashed(self, password: str) -> str:
        return await anyio.to_thread.run_sync(_hasher.hash, password, limiter=self._hashing)


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
    """Return the address as it is kept and compared."""
    return email.strip().lower()


def _matches(hashed: str | None, password: str) -> bool:
    try:
        return _hasher.verify(hashed or _nobody(), password)
    except (VerificationError, InvalidHashError):
        return False
