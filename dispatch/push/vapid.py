"""Who we are to push services (VAPID, RFC 8292): one key for all nodes, kept in SQL.

A subscription is bound to the key that it was made with. So the key outlives every other: it is made once, of the secret key that
the installation has then (as versions before this one did at each start, so that their subscriptions stay good), and stays when
that one is rotated.
"""

import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec

from dispatch.push.sealing import CURVE, SALT_LEN, authorization, public_point, seal, to_base64url
from infra.clock import Clock
from infra.database import Database
from infra.statements import Nothing, Statement, Transaction

SQL: Final = Path(__file__).parent / "sql"
NAME: Final = "vapid"
KEY_LEN: Final = 32
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class KeptKey:
    """A row of ``read_key``: bytes in base64."""

    value: str


KEEP_KEY = Statement(SQL / "keep_key.sql", Nothing)
READ_KEY = Statement(SQL / "read_key.sql", KeptKey)


class Vapid:
    """Seals and signs. Every method raises ``DatabaseUnavailable`` until the key has been read once."""

    def __init__(self, database: Database, clock: Clock, *, secret_key: str, contact: str) -> None:
        """``contact`` is our public URL, from which a push service's operator may find us (the ``sub`` claim)."""
        self._database = database
        self._clock = clock
        self._secret_key = secret_key
        self._subject = _subject(contact)
        self._key: ec.EllipticCurvePrivateKey | None = None

    async def public_key(self) -> str:
        """Return the ``applicationServerKey`` for browsers: base64url of the uncompressed point."""
        return to_base64url(public_point(await self._kept()))

    async def authorization(self, endpoint: str) -> str:
        """Return the header by which the push service at ``endpoint`` knows us."""
        now_s = self._clock.now_ms() // 1000
        return authorization(endpoint, key=await self._kept(), subject=self._subject, now_s=now_s)

    def seal(self, text: bytes, *, p256dh: str, auth: str) -> bytes:
        """Return a message for one browser alone, under a key of its own; raises ``CannotSeal``."""
        return seal(text, p256dh=p256dh, auth=auth, key=ec.generate_private_key(CURVE), salt=os.urandom(SALT_LEN))

    async def _kept(self) -> ec.EllipticCurvePrivateKey:
        if self._key is None:
            digest = hashlib.sha512(b"pitlane vapid " + self._secret_key.encode()).digest()
            first = int.from_bytes(digest, "big") % (_P256_ORDER - 1) + 1

            def work() -> Transaction[KeptKey]:
                value = base64.b64encode(first.to_bytes(KEY_LEN, "big")).decode()
                # Whoever comes first makes it, for all.
                yield from KEEP_KEY(name=NAME, value=value, at_ms=self._clock.now_ms())
                [kept] = yield from READ_KEY(name=NAME)
                return kept

            kept = await self._database.commit(work())
            self._key = ec.derive_private_key(int.from_bytes(base64.b64decode(kept.value), "big"), CURVE)
        return self._key


def _subject(contact: str) -> str:
    """Return the contact as push services accept it: a public https URL, or an address (RFC 8292 §2.1)."""
    url = urlsplit(contact)
    if url.scheme == "https" and url.hostname and "." in url.hostname:
        return f"https://{url.hostname}"
    return "mailto:operator@localhost"
