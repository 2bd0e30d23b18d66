"""Passwords: changed by who knows the present one, or set anew by who can read the account's mail."""

from collections import deque
from typing import Final
from urllib.parse import quote

import anyio
import structlog

from accounts.accounts import Accounts, normal_email
from accounts.revocations import Revocations
from http_api.rest.login_limit import LoginLimit, TooMany
from http_api.rest.operation import ANYONE, SIGNED_IN, Answer, Call, Operation, operation
from http_api.rest.rate_limit import RateLimit
from http_api.rest.signing_in import SigningIn
from infra.loops import failing_alone
from infra.mail import Mail, Mailer
from models import outcomes, tables
from models.errors import Unavailable
from models.outcomes import Refused
from models.rest import ForgotBody, PasswordBody, ResetBody, SignedIn

RESET_PAGE: Final = "/reset"
"""Behind its ``#`` stands the token: browsers send that to no server, and write it into no Referer."""
WAITING_MAX: Final = 500
"""Addresses that are still to be looked up."""


class ForgottenPasswords:
    """Looks addresses up and writes to those that have an account: after the answer, so that it tells nobody which ones have."""

    def __init__(self, accounts: Accounts, mailer: Mailer, signing_in: SigningIn, of_account: RateLimit) -> None:
        self._accounts = accounts
        self._mailer = mailer
        self._clock = signing_in.clock
        self._page = signing_in.settings.base_url + RESET_PAGE
        self._of_account = of_account
        self._waiting: deque[str] = deque()
        self._has_some = anyio.Event()
        self._log = structlog.get_logger("passwords")

    def ask(self, email: str) -> bool:
        """Have a link sent to an address, if there is an account; ``False`` if too many ask just now. Never waits."""
        if len(self._waiting) >= WAITING_MAX:
            return False
        self._waiting.append(email)
        self._has_some.set()
        return True

    async def run(self) -> None:
        """Look up and write until cancelled. What cannot be looked up is forgotten: whoever waits in vain asks again."""
        while True:
            await self._has_some.wait()
            self._has_some = anyio.Event()
            while self._waiting:
                email = self._waiting.popleft()
                try:
                    with failing_alone("forgotten_passwords"):
                        await self._write_to(email)
                except Unavailable as error:
                    self._log.warning("password_link_not_sent", error=str(error))

    async def _write_to(self, email: str) -> None:
        if await self._of_account.take(normal_email(email)) is not None:
            return
        begun = await self._accounts.begin_reset(email, now_ms=self._clock.now_ms())
        if begun is None:
            return
        account, token = begun
        text = (
            # Not the name: whoever registers somebody else's address could have us send them any.
            "Hello,\n\nsomebody, we hope you, has asked for a new password for your Pitlane account.\n"
            "Choose one here within 30 minutes; the link works once:\n\n"
            f"{self._page}#{quote(token)}\n\n"
            "If it was not you, leave this mail alone: nothing has changed.\n"
        )
        self._mailer.post(Mail(account.email, "Your new Pitlane password", text))


def operations(
    accounts: Accounts,
    revocations: Revocations,
    limit: LoginLimit,
    signing_in: SigningIn,
    forgotten: ForgottenPasswords,
    of_address: RateLimit,
) -> list[Operation]:
    """Return this module's part of the table. ``of_address``: how often links may be asked for, or used, from one address."""

    @operation(
        "POST",
        "/api/auth/password",
        roles=SIGNED_IN,
        body=PasswordBody,
        answers={200: SignedIn},
        problems=("bad_credentials", "too_many_attempts", "too_many_requests", "unavailable"),
    )
    async def change_password(call: Call) -> Answer | Refused:
        """Change the password.

        All other tokens of the account are refused from now on, and the sockets closed (4401) that they have opened; the answer has
        a fresh one, and sets the cookie.
        """
        body = call.body_as(PasswordBody)
        account = await proven(accounts, limit, call, body.current_password)
        if isinstance(account, Refused):
            return account
        revoked_up_to_ms = await accounts.change_password(account, body.new_password, signing_in.clock)
        if isinstance(revoked_up_to_ms, Refused):
            return _about(revoked_up_to_ms, "new_password")
        await revocations.tell()
        return await signing_in.answer(call, account, status=200, after_ms=revoked_up_to_ms)

    @operation(
        "POST",
        "/api/auth/password/forgot",
        roles=ANYONE,
        body=ForgotBody,
        answers={204: None},
        problems=("too_many_requests", "unavailable"),
    )
    async def forgot_password(call: Call) -> Refused | None:
        """Have a link to a new password sent by e-mail, if there is an account with this address. The answer is always the same.

        The link is good for 30 minutes, once.
        """
        if (too_many := await of_address.take(call.client_address)) is not None:
            return too_many
        if not forgotten.ask(call.body_as(ForgotBody).email):
            return outcomes.TooMany(
                detail="Too many people ask just now. Please try again in a minute.", retry_after_s=60
            )
        return None

    @operation(
        "POST",
        "/api/auth/password/reset",
        roles=ANYONE,
        body=ResetBody,
        answers={200: SignedIn},
        problems=("bad_reset_token", "too_many_requests", "unavailable"),
    )
    async def reset_password(call: Call) -> Answer | Refused:
        """Choose a new password with the token of the link, and sign in; all tokens from before are refused."""
        if (too_many := await of_address.take(call.client_address)) is not None:
            return too_many
        body = call.body_as(ResetBody)
        done = await accounts.reset_password(body.reset_token, body.new_password, signing_in.clock)
        if isinstance(done, Refused):
            return _about(done, "new_password")
        account, revoked_up_to_ms = done
        await revocations.tell()
        return await signing_in.answer(call, account, status=200, after_ms=revoked_up_to_ms, if_late="bad_reset_token")

    return [change_password, forgot_password, reset_password]


def _about(refused: Refused, member: str) -> Refused:
    """Return a refusal that names the member of the body that it is about."""
    return Refused(refused.code, refused.detail, member=member) if refused.member else refused


async def proven(accounts: Accounts, limit: LoginLimit, call: Call, password: str) -> tables.Account | Refused:
    """Return the account of who calls, if that is its password; failures count as those of signing in do."""
    account = await accounts.find(call.account_id)
    if account is None:
        return Refused("unauthenticated", "This account is gone.")
    async with limit.attempt(account.email, call.client_address, device_id=f"signed-in:{account.id}") as attempt:
        if isinstance(attempt, TooMany):
            return outcomes.TooMany("too_many_attempts", attempt.detail, retry_after_s=attempt.retry_after_s)
        found = await accounts.proves(account.id, password)
        attempt.succeeded = found is not None
    return found if found is not None else Refused("bad_credentials", "That is not your current password.")
