"""Where an account is signed in: a row for each device that a password was given on, for its owner to look through.

A token is checked without these rows. They only say what there is to end, and ending one is a matter of ``revocations``.
"""

from dataclasses import dataclass
from typing import Final

from sqlmodel import col, delete, select, update

from accounts.revocations import SQL, Proof, is_revoked, still_here
from infra.database import Database, within
from infra.statements import Statement
from models.tables import SignIn
from models.text import cleaned

SHOWN_MAX: Final = 100
"""Of the newest; whoever has more looks at something else than a list, and signs out everywhere."""
USER_AGENT_LEN_MAX: Final = 200


@dataclass(frozen=True)
class Held:
    """A row of ``hold_password``."""

    id: str


HOLD_PASSWORD: Final = Statement(SQL / "hold_password.sql", Held)


@dataclass(frozen=True)
class NewSignIn:
    """A device that somebody has just signed in on. ``user_agent``: what its program calls itself (RFC 9110 §10.1.5).

    ``password_hash``: of the password that they have proven to know.
    """

    id: str
    account_id: str
    password_hash: str | None
    user_agent: str | None


class SignIns:
    """The devices of accounts, in SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, new: NewSignIn, *, now_ms: int, expires_at_ms: int) -> bool:
        """Keep a sign-in until its token ends; those of the account that have ended by then go.

        ``False`` if the password has been changed since it was proven: the token, which is of ``now_ms``, must not be handed out.
        One that is changed later revokes it.
        """
        async with self._database.write() as session:
            if not await within(session, HOLD_PASSWORD(id=new.account_id, password_hash=new.password_hash or "")):
                return False
            ended = (col(SignIn.account_id) == new.account_id) & (col(SignIn.expires_at_ms) <= now_ms)
            await session.exec(delete(SignIn).where(ended))
            session.add(
                SignIn(
                    id=new.id,
                    account_id=new.account_id,
                    user_agent=_shown(new.user_agent),
                    created_at_ms=now_ms,
                    expires_at_ms=expires_at_ms,
                )
            )
        return True

    async def renewed(self, proof: Proof, sign_in_id: str, *, expires_at_ms: int) -> bool:
        """Keep a sign-in for longer: its token, the ``proof``, is followed by another. Does nothing to one that is not kept.

        ``False`` if the token has been revoked, also if this node has not heard of it yet: what follows must not be handed out.
        """
        async with self._database.write() as session:
            if not await within(session, still_here(proof.account_id)) or await within(session, is_revoked(proof)):
                return False
            await session.exec(update(SignIn).where(col(SignIn.id) == sign_in_id).values(expires_at_ms=expires_at_ms))
        return True

    async def of(self, account_id: str, *, now_ms: int) -> list[SignIn]:
        """Return where the account is signed in, the newest first."""
        async with self._database.read() as session:
            lives = (col(SignIn.account_id) == account_id) & (col(SignIn.expires_at_ms) > now_ms)
            return list(
                await session.exec(select(SignIn).where(lives).order_by(col(SignIn.id).desc()).limit(SHOWN_MAX))
            )


def _shown(user_agent: str | None) -> str | None:
    """Return it as it is kept, cut where it is too long; ``None`` if nothing of it can be seen."""
    return cleaned(user_agent or "")[:USER_AGENT_LEN_MAX].strip() or None
