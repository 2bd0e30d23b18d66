"""A push message can be read by the browser that it is for, and by nobody else."""

import http_ece
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from dispatch.push import sealing
from dispatch.push.sealing import (
    CURVE,
    RECORD_LEN,
    CannotSeal,
    authorization,
    from_base64url,
    public_point,
    seal,
    to_base64url,
)

NOW_S = 1_700_000_000


def key_of(text: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(from_base64url(text), "big"), CURVE)


def test_a_message_is_sealed_as_the_standard_shows() -> None:
    # The example of RFC 8291 §5.
    sealed = seal(
        b"When I grow up, I want to be a watermelon",
        p256dh="BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        auth="BTBZMqHH6r4Tts7J_aSIgg",
        key=key_of("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"),
        salt=from_base64url("DGv6ra1nlYgDCS1FRnbzlw"),
    )
    assert to_base64url(sealed) == (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml"
        "mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT"
        "pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


@pytest.mark.parametrize("length", [0, 1, RECORD_LEN - sealing.OVERHEAD_LEN])
def test_any_message_that_is_not_too_long_is_read_by_its_browser(length: int) -> None:
    browser, auth = ec.generate_private_key(CURVE), b"sixteen bytes..."
    sealed = seal(
        b"x" * length,
        p256dh=to_base64url(public_point(browser)),
        auth=to_base64url(auth),
        key=ec.generate_private_key(CURVE),
        salt=b"also sixteen too",
    )
    assert len(sealed) <= RECORD_LEN
    assert http_ece.decrypt(sealed, private_key=browser, auth_secret=auth, version="aes128gcm") == b"x" * length


@pytest.mark.parametrize(
    ("p256dh", "text"),
    [
        ("AAAA", b""),
        ("not base64url at all!", b""),
        ("ä", b""),
        (to_base64url(b"\x04" + b"\x01" * 64), b""),
        (to_base64url(public_point(ec.generate_private_key(CURVE))), b"x" * RECORD_LEN),
    ],
    ids=["too short", "no base64url", "no ASCII", "not on the curve", "too much text"],
)
def test_keys_that_are_none_and_texts_that_are_too_long_are_refused(p256dh: str, text: bytes) -> None:
    with pytest.raises(CannotSeal):
        seal(text, p256dh=p256dh, auth="AAAA", key=ec.generate_private_key(CURVE), salt=b"also sixteen too")


def test_a_message_is_signed_for_one_push_service_and_half_a_day() -> None:
    key = ec.generate_private_key(CURVE)
    header = authorization(
        "https://push.example:8443/send/abc?d=e", key=key, subject="mailto:operator@localhost", now_s=NOW_S
    )
    token, point = (part.split("=", 1)[1] for part in header.removeprefix("vapid ").split(","))
    assert from_base64url(point) == public_point(key)
    claims = jwt.decode(
        token, key.public_key(), algorithms=["ES256"], options={"verify_aud": False, "verify_exp": False}
    )
    assert claims == {
        "aud": "https://push.example:8443",
        "exp": NOW_S + 12 * 3600,
        "sub": "mailto:operator@localhost",
    }
