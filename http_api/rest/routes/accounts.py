"""Signing up, in and out, and who one is."""

from accounts.accounts import Accounts, NewAccount
from accounts.revocations import Revocations
from http_api import cookies
from http_api.rest.login_limit import LoginLimit, TooMany
from http_api.rest.operation import ANYONE, SIGNED_IN, Answer, Call, Operation, operation
from http_api.rest.rate_limit import RateLimit
from http_api.rest.signing_in import SigningIn, account_view
from models import outcomes
from models.outcomes import Refused
from models.rest import AccountView, LoginBody, LogoutBody, PublicConfig, RegisterBody, Renewed, SignedIn
from models.timestamps import rfc3339
from models.words import Role


def operations(
    accounts: Accounts,
    revocations: Revocations,
    limit: LoginLimit,
    registrations: RateLimit,
    of_account: RateLimit,
    signing_in: SigningIn,
) -> list[Operation]:
    """Return this module's part of the table.

    ``registrations``: from one address. ``of_account``: how often one may sign in, each of which is a device to list, and to keep
    in mind once it has been signed out.
    """
    tokens, clock, settings = signing_in.tokens, signing_in.clock, signing_in.settings

    @operation(
        "POST",
        "/api/auth/register",
        roles=ANYONE,
        body=RegisterBody,
        answers={201: SignedIn},
        problems=("email_taken", "too_many_requests", "unavailable"),
    )
    async def register(call: Call) -> Answer | Refused:
        """Make a customer's account and sign in.

        The answer also sets the cookie `pitlane_session`.
        """
        body = call.body_as(RegisterBody)
        if (too_many := await registrations.take(call.client_address)) is not None:
            return too_many
        new = NewAccount(Role.CUSTOMER, body.email, body.name, body.password)
        account = await accounts.add(new, now_ms=call.received_at_ms)
        if isinstance(account, Refused):
            return account
        return await signing_in.answer(call, account, status=201, if_late="email_taken")

    @operation(
        "POST",
        "/api/auth/login",
        roles=ANYONE,
        body=LoginBody,
        answers={200: SignedIn},
        problems=("bad_credentials", "too_many_attempts", "too_many_requests", "unavailable"),
    )
    async def login(call: Call) -> Answer | Refused:
        """Sign in.

        The answer also sets the cookie `pitlane_session`. After five failures within a minute from one address for one account, or
        twenty from one address, even the right password is refused, until `Retry-After` seconds have passed. A browser that has
        signed in to the account before has failures of its own.
        """
        body = call.body_as(LoginBody)
        device_id = signing_in.known_browsers.device_of(call.headers.get("cookie", ""), body.email)
        async with limit.attempt(body.email, call.client_address, device_id=device_id) as attempt:
            if isinstance(attempt, TooMany):
                return outcomes.TooMany("too_many_attempts", attempt.detail, retry_after_s=attempt.retry_after_s)
            account = await accounts.sign_in(body.email, body.password)
            attempt.succeeded = account is not None
        if account is None:
            return Refused("bad_credentials", "The e-mail address or the password is wrong.")
        if account.disabled_at_ms is not None:
            # Told to whoever knows the password, and to nobody else.
            return Refused("bad_credentials", "This account has been disabled. Ask whoever runs this place.")
        if (too_many := await of_account.take(account.id)) is not None:
            return too_many
        return await signing_in.answer(call, account, status=200)

    @operation("POST", "/api/auth/renew", roles=SIGNED_IN, answers={200: Renewed}, problems=("unavailable",))
    async def renew(call: Call) -> Renewed | Answer | Refused:
        """Stay signed in: get a fresh token for the same account, before the present one expires.

        Whoever calls with a token gets the token, a browser the cookie `pitlane_session`. The present token stays good until it
        expires. A socket that it has opened is closed then (4401); whoever connects again with the fresh one gets a snapshot, and
        has missed nothing.
        """
        account = await accounts.find(call.account_id)
        if account is None:
            return Refused("unauthenticated", "This account is gone.")
        now_ms = clock.now_ms()
        issued = tokens.issue(account.id, account.role, now_ms=now_ms, sign_in_id=call.identity.sign_in_id)
        if not await signing_in.sign_ins.renewed(
            call.identity.proof, issued.sign_in_id, expires_at_ms=issued.expires_at_s * 1000
        ):
            return Refused("unauthenticated", "You have been signed out.")
        renewed = Renewed(account_view(account), rfc3339(issued.expires_at_s * 1000))
        if call.identity.via == "cookie":
            max_age_s = issued.expires_at_s - now_ms // 1000
            kept = cookies.setting(cookies.SESSION, issued.token, max_age_s)
            return Answer(200, renewed, cookies=[kept])
        renewed.token = issued.token
        return renewed

    @operation(
        "POST",
        "/api/auth/logout",
        roles=SIGNED_IN,
        body=LogoutBody,
        body_is_optional=True,
        answers={204: None},
        problems=("unavailable",),
    )
    async def logout(call: Call) -> Answer:
        """Sign out: here, or with `everywhere` on all devices.

        The token is refused from now on, with all that were renewed from it and came before it; so are the sockets that they opened
        (4401). The session cookie is cleared.
        """
        if call.body_as(LogoutBody).everywhere:
            await revocations.revoke_all(call.account_id)
        else:
            await revocations.revoke_token(call.identity.proof)
        return Answer(204, cookies=[cookies.setting(cookies.SESSION, "", 0)])

    @operation("GET", "/api/me", roles=SIGNED_IN, answers={200: AccountView}, problems=("unavailable",))
    async def me(call: Call) -> AccountView | Refused:
        """Say whose token this is, until when it is good, and from when on it is worth renewing."""
        account = await accounts.find(call.account_id)
        if account is None:
            return Refused("unauthenticated", "This account is gone.")
        view, expires_at_s = account_view(account), call.identity.expires_at_s
        view.session_expires_at = rfc3339(expires_at_s * 1000)
        view.session_renew_at = rfc3339((expires_at_s - settings.token_lifetime_s // 2) * 1000)
        return view

    @operation("GET", "/api/config", roles=ANYONE, answers={200: PublicConfig})
    async def config(_call: Call) -> PublicConfig:
        """Say how long the windows are, for the sentences on the pages."""
        return PublicConfig(
            priority_window_s=settings.priority_window_ms / 1000,
            broadcast_window_s=settings.broadcast_window_ms / 1000,
            heartbeat_interval_s=settings.heartbeat_interval_ms / 1000,
            demo=settings.is_demo,
        )

    return [register, login, renew, logout, me, config]
