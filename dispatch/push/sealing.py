"""One Web Push message: sealed for a single browser (RFC 8291), and signed so that the push service knows us (RFC 8292).

Pure: the key and the salt of each message come from the caller, who never uses them again.
"""

import base64
import binascii
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from models.errors import PitlaneError

CURVE = ec.SECP256R1()
SALT_LEN = 16
POINT_LEN = 65
AUTH_LEN = 16
RECORD_LEN = 4096
"""Bytes. A message is one record (RFC 8291 §4), and push services take no more than this."""
OVERHEAD_LEN = 86 + 17
"""Bytes of a message that are not its text: the header, the delimiter and the seal (RFC 8188 §2)."""
TEXT_LEN_MAX = RECORD_LEN - OVERHEAD_LEN
SIGNATURE_LIFETIME_S = 12 * 3600
"""Push services refuse one of more than a day (RFC 8292 §2)."""

_LAST_RECORD = b"\x02"


class CannotSeal(PitlaneError):
    """A message cannot be sealed for a subscription; nor will the next one be."""


def seal(text: bytes, *, p256dh: str, auth: str, key: ec.EllipticCurvePrivateKey, salt: bytes) -> bytes:
    """Return the body that only the browser which gave ``p256dh`` and ``auth`` can read, in the coding ``aes128gcm``.

    Raises ``CannotSeal`` when these are no keys, and when the text is too long.
    """
    if len(text) > TEXT_LEN_MAX:
        raise CannotSeal(f"A push message of {len(text)} bytes is too long.")
    try:
        theirs, their_salt = from_base64url(p256dh), from_base64url(auth)
        secret = key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(CURVE, theirs))
    except ValueError as error:
        raise CannotSeal(f"The keys of a push subscription are none: {error}") from error
    ours = public_point(key)
    shared = _derive(secret, salt=their_salt, info=b"WebPush: info\0" + theirs + ours, length=32)
    content_key = _derive(shared, salt=salt, info=b"Content-Encoding: aes128gcm\0", length=16)
    nonce = _derive(shared, salt=salt, info=b"Content-Encoding: nonce\0", length=12)
    header = salt + RECORD_LEN.to_bytes(4, "big") + bytes([len(ours)]) + ours
    return header + AESGCM(content_key).encrypt(nonce, text + _LAST_RECORD, None)


def check_keys(p256dh: str, auth: str) -> None:
    """Raise ``CannotSeal`` unless these are a browser's keys: a point on the curve, uncompressed, and 16 bytes (RFC 8291 §3.1)."""
    try:
        point, secret = from_base64url(p256dh), from_base64url(auth)
        if len(point) != POINT_LEN:
            raise ValueError(f"p256dh is {len(point)} bytes long, and not {POINT_LEN}")
        ec.EllipticCurvePublicKey.from_encoded_point(CURVE, point)
        if len(secret) != AUTH_LEN:
            raise ValueError(f"auth is {len(secret)} bytes long, and not {AUTH_LEN}")
    except ValueError as error:
        raise CannotSeal(f"The keys of a push subscription are none: {error}.") from error


def authorization(endpoint: str, *, key: ec.EllipticCurvePrivateKey, subject: str, now_s: int) -> str:
    """Return the header by which the push service at ``endpoint`` knows whose message it is; ``subject`` says whom to ask."""
    url = urlsplit(endpoint)
    claims = {"aud": f"{url.scheme}://{url.netloc}", "exp": now_s + SIGNATURE_LIFETIME_S, "sub": subject}
    token = jwt.encode(claims, key, algorithm="ES256")
    return f"vapid t={token},k={to_base64url(public_point(key))}"


def public_point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public half of a key, as browsers take and give it: the uncompressed point."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def to_base64url(data: bytes) -> str:
    """Return the data as text, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Return what ``to_base64url`` was given, padded or not; raises ``ValueError`` for anything else."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64url: {error}") from error


def _derive(secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)
