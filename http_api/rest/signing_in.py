"""The answer to whoever has just proved who they are: a token, and the cookie with it for browsers."""

from dataclasses import dataclass

from accounts.sign_ins import NewSignIn, SignIns
from http_api import cookies
from http_api.auth import Tokens, origin_is_ours
from http_api.known_browsers import KnownBrowsers
from http_api.rest.operation import Answer, Call
from infra.clock import Clock
from models.outcomes import Refused
from models.rest import AccountView, SignedIn
from models.settings import DoorSettings
from models.tables import Account
from models.timestamps import rfc3339
from models.words import Role


@dataclass(frozen=True)
class SigningIn:
    """Signs accounts in; the same for every door that leads to it."""

    tokens: Tokens
    sign_ins: SignIns
    known_browsers: KnownBrowsers
    clock: Clock
    settings: DoorSettings

    async def answer(
        self, call: Call, account: Account, *, status: int, after_ms: int = 0, if_late: str = "bad_credentials"
    ) -> Answer | Refused:
        """Return ``SignedIn`` with a fresh token for ``account``, for a device that is on the account's list from now on.

        ``account`` as it was when its password was proven; ``if_late`` is what is answered if that has been changed since.
        ``after_ms``: the instant up to which all tokens have just been revoked.
        """
        now_ms = max(self.clock.now_ms(), after_ms + 1)
        issued = self.tokens.issue(account.id, account.role, now_ms=now_ms)
        new = NewSignIn(issued.sign_in_id, account.id, account.password_hash, call.headers.get("user-agent"))
        if not await self.sign_ins.note(new, now_ms=now_ms, expires_at_ms=issued.expires_at_s * 1000):
            return Refused(if_late, "The password of this account has just been changed.")
        kept: list[str] = []
        origin = call.headers.get("origin")
        if origin is None or origin_is_ours(origin, self.settings):
            # A foreign page must not be able to sign its visitor in here as somebody else.
            max_age_s = issued.expires_at_s - now_ms // 1000
            kept.append(cookies.setting(cookies.SESSION, issued.token, max_age_s))
            kept.append(self.known_browsers.remembering(call.headers.get("cookie", ""), account.email))
        expires_at = rfc3339(issued.expires_at_s * 1000)
        return Answer(status, SignedIn(account_view(account), issued.token, expires_at), cookies=kept)


def account_view(account: Account) -> AccountView:
    """Return what an account is told of itself."""
    view = AccountView(account.id, account.role, account.name, account.email)
    if account.role is Role.CUSTOMER:
        view.has_used_free_session = account.free_session_used
    return view
