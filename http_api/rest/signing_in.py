"""The answer to whoever has just proved who they are: a token, and the cookie with it for browsers."""

from dataclasses import dataclass

from http_api.auth import Tokens, origin_is_ours, session_cookie
from http_api.rest.operation import Answer, Call
from infra.clock import Clock
from models.rest import AccountView, SignedIn
from models.settings import DoorSettings
from models.tables import Account
from models.timestamps import rfc3339
from models.words import Role


@dataclass(frozen=True)
class SigningIn:
    """Signs accounts in; the same for every door that leads to it."""

    tokens: Tokens
    clock: Clock
    settings: DoorSettings

    async def answer(self, call: Call, account: Account, *, status: int) -> Answer:
        """Return ``SignedIn`` with a fresh token for ``account``."""
        now_s = self.clock.now_ms() // 1000
        token, expires_at_s = self.tokens.issue(account.id, account.role, now_s=now_s)
        headers = {}
        origin = call.headers.get("origin")
        if origin is None or origin_is_ours(origin, self.settings):
            # A foreign page must not be able to sign its visitor in here as somebody else.
            headers["Set-Cookie"] = session_cookie(token, expires_at_s - now_s, self.settings)
        return Answer(status, SignedIn(account_view(account), token, rfc3339(expires_at_s * 1000)), headers)


def account_view(account: Account) -> AccountView:
    """Return what an account is told of itself."""
    view = AccountView(account.id, account.role, account.name, account.email)
    if account.role is Role.CUSTOMER:
        view.has_used_free_session = account.free_session_used
    return view
