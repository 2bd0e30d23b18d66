"""Browsers that have signed in before, known again by a cookie that outlives signing out (owasp.org, "Device Cookies").

Whoever guesses passwords elsewhere must not keep an account's owner out. So a browser that its owner has used has failures of its
own to spend, and those of others do not count for it. The cookie names accounts by a digest, and opens nothing.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

import msgspec

from accounts.accounts import normal_email
from http_api import cookies
from models.ids import new_id

MAX_AGE_S: Final = 400 * 24 * 3600
"""As long as browsers keep any (RFC 6265bis §5.5)."""
ACCOUNTS_MAX: Final = 5
"""That one browser is known for, newest kept."""
DIGEST_LEN: Final = 16


class _Known(msgspec.Struct):
    """What the cookie says: which browser, and for which accounts."""

    device: str
    accounts: list[str]


class KnownBrowsers:
    """Makes and reads the cookie."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        """The first of ``secret_keys`` signs, all verify."""
        self._keys = [hashlib.sha256(b"pitlane known browser " + key.encode()).digest() for key in secret_keys]
        self._decoder = msgspec.json.Decoder(_Known)

    def device_of(self, cookie_header: str, email: str) -> str | None:
        """Return the id of the browser, if its cookie is ours and knows the account; else ``None``."""
        known = self._read(cookie_header)
        if known is None or not any(digest in known.accounts for digest in self._digests(email)):
            return None
        return known.device

    def remembering(self, cookie_header: str, email: str) -> str:
        """Return the ``Set-Cookie`` value by which the browser is known for one more account."""
        known = self._read(cookie_header) or _Known(new_id(), [])
        mine = self._digests(email)
        others = [digest for digest in known.accounts if digest not in mine]
        known.accounts = [mine[0], *others][:ACCOUNTS_MAX]
        value = msgspec.json.encode(known).hex()
        return cookies.setting(cookies.DEVICE, f"{value}.{self._signature(value, self._keys[0])}", MAX_AGE_S)

    def _read(self, cookie_header: str) -> _Known | None:
        value, _, signature = (cookies.value_of(cookie_header, cookies.DEVICE) or "").partition(".")
        if not any(hmac.compare_digest(self._signature(value, key).encode(), signature.encode()) for key in self._keys):
            return None
        return self._decoder.decode(bytes.fromhex(value))

    def _digests(self, email: str) -> list[str]:
        # By each key: after a rotation the cookie still names accounts by the old one.
        text = normal_email(email).encode(errors="surrogatepass")
        return [hmac.new(key, text, hashlib.sha256).hexdigest()[:DIGEST_LEN] for key in self._keys]

    def _signature(self, value: str, key: bytes) -> str:
        return hmac.new(key, value.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
