"""Tokens, where they are carried, and whose page asks."""

import base64
import hashlib
import warnings
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from http_api import cookies
from http_api.auth import Identity, Tokens, origin_is_ours, token_of
from models.ids import first_id_at, id_at, instant_of
from models.settings import DoorSettings, Settings
from models.timestamps import rfc3339

SECRET_KEY = "a secret that is long enough for HS256"
NOW_S = 1_795_000_000
tokens = Tokens([SECRET_KEY], lifetime_s=60)


def made_elsewhere(secret_key: str = SECRET_KEY, algorithm: str | None = "HS256", **changes: Any) -> str:
    """Return a token as a client with the secret key would make it; a claim that is ``...`` is left out."""
    claims = {"sub": "01J9ZK", "role": "mechanic", "iat": NOW_S - 1, "exp": NOW_S + 60} | changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jwt.encode({name: value for name, value in claims.items() if value is not ...}, secret_key, algorithm)


def verify(token: str, *, now_s: int = NOW_S) -> Identity | None:
    return tokens.verify(token, now_s=now_s, via="bearer")


def test_an_issued_token_is_good_until_the_second_it_expires():
    issued = tokens.issue("01J9ZK", "customer", now_ms=NOW_S * 1000 + 7)
    assert issued.expires_at_s == NOW_S + 60
    identity = verify(issued.token, now_s=issued.expires_at_s - 1)
    assert identity is not None
    assert (identity.account_id, identity.role, identity.expires_at_s) == ("01J9ZK", "customer", NOW_S + 60)
    assert identity.issued_at_ms == NOW_S * 1000 + 7
    assert identity.sign_in_id == issued.sign_in_id
    assert verify(issued.token, now_s=issued.expires_at_s) is None


def test_a_token_is_one_that_any_jwt_library_reads():
    issued = tokens.issue("01J9ZK", "customer", now_ms=NOW_S * 1000)
    claims = jwt.decode(
        issued.token, SECRET_KEY, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False}
    )
    assert claims.pop("jti") == claims.pop("sid") == issued.sign_in_id
    assert claims == {"sub": "01J9ZK", "role": "customer", "iat": NOW_S, "exp": NOW_S + 60}


def test_a_token_made_elsewhere_with_the_key_is_accepted():
    identity = verify(made_elsewhere())
    assert identity is not None
    assert (identity.account_id, identity.role, identity.expires_at_s) == ("01J9ZK", "mechanic", NOW_S + 60)
    # Of one without an id the whole of it is one.
    assert len(identity.token_id) == 64
    assert identity.issued_at_ms == (NOW_S - 1) * 1000
    assert identity.sign_in_id is not None
    assert instant_of(identity.sign_in_id) == (NOW_S - 1) * 1000
    assert verify(made_elsewhere(exp=NOW_S + 0.5, extra={"is": "ignored"})) is not None


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(made_elsewhere(secret_key="another secret, which is as long as ours"), id="another key"),
        pytest.param(made_elsewhere(algorithm=None, secret_key=""), id="alg none"),
        pytest.param(made_elsewhere(algorithm="HS512"), id="another algorithm with our key"),
        pytest.param(made_elsewhere(exp=NOW_S), id="expired this second"),
        pytest.param(made_elsewhere(nbf=NOW_S + 1), id="not valid yet"),
        *(pytest.param(made_elsewhere(**{claim: ...}), id=f"no {claim}") for claim in ("sub", "role", "iat", "exp")),
        *(pytest.param(made_elsewhere(role=role), id=f"role {role!r}") for role in ("root", "", 1, ["admin"])),
        *(pytest.param(made_elsewhere(sub=sub), id=f"sub {sub!r}") for sub in ("", "a b", "x" * 65, "a/../b")),
        *(pytest.param(made_elsewhere(exp=exp), id=f"exp {exp!r}") for exp in (str(NOW_S + 60), True, None, [])),
        *(pytest.param(made_elsewhere(iat=iat), id=f"iat {iat!r}") for iat in ("now", True, None)),
        *(pytest.param(made_elsewhere(**{claim: float("inf")}), id=f"{claim} without end") for claim in ("iat", "exp")),
        pytest.param(made_elsewhere(jti=7), id="a jti that is no text"),
    ],
)
def test_any_other_token_is_nobodys(token: str):
    assert verify(token) is None


def test_a_changed_byte_anywhere_spoils_a_token():
    token = tokens.issue("01J9ZK", "customer", now_ms=NOW_S * 1000).token
    for position in range(len(token)):
        # The last character of a base64 text carries bits that nobody reads; every other change must be noticed.
        if token[position] != "." and position != len(token) - 1:
            changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
            assert verify(changed) is None, position


@given(st.text(max_size=200) | st.lists(st.text("abcABC019-_=", max_size=30), min_size=3, max_size=3).map(".".join))
def test_no_text_makes_verifying_raise(text: str):
    assert verify(text) is None


def test_a_header_of_nothing_but_brackets_is_no_token():
    bomb = base64.urlsafe_b64encode(b"[" * 30_000).decode().rstrip("=")
    assert verify(f"{bomb}.e30.c2ln") is None


def test_a_short_key_is_the_settings_business_and_warns_nobody():
    short = Tokens(["short"], lifetime_s=60)
    token = short.issue("01J9ZK", "customer", now_ms=NOW_S * 1000).token
    assert short.verify(token, now_s=NOW_S, via="cookie") is not None


@pytest.mark.parametrize(
    ("headers", "carried"),
    [
        ([], None),
        ([("authorization", "Bearer abc")], ("abc", "bearer")),
        ([("authorization", "bearer abc ")], ("abc", "bearer")),
        ([("authorization", "Bearer")], ("", "bearer")),
        ([("authorization", "Basic abc")], None),
        ([("cookie", "pitlane_session=abc")], ("abc", "cookie")),
        ([("cookie", 'a=b; pitlane_session="abc";c=d')], ("abc", "cookie")),
        ([("cookie", "a=b"), ("cookie", "pitlane_session=abc")], ("abc", "cookie")),
        ([("cookie", "not_pitlane_session=abc")], None),
        ([("cookie", "__Host-pitlane_session=abc")], ("abc", "cookie")),
        # A neighbour under the same domain can set the plain name, before or after.
        ([("cookie", "pitlane_session=evil; __Host-pitlane_session=abc")], ("abc", "cookie")),
        ([("cookie", "pitlane_session=evil"), ("cookie", "__Host-pitlane_session=abc")], ("abc", "cookie")),
        ([("cookie", "pitlane_session=good"), ("authorization", "Bearer bad")], ("bad", "bearer")),
        ([("authorization", "Basic abc"), ("cookie", "pitlane_session=abc")], ("abc", "cookie")),
    ],
)
def test_a_bearer_header_wins_over_the_cookie(headers: list[tuple[str, str]], carried: tuple[str, str] | None):
    assert token_of([(name.encode(), value.encode()) for name, value in headers]) == carried


def doors(**changes: Any) -> DoorSettings:
    return Settings(_env_file=None, secret_key=SECRET_KEY, **changes).doors()


def test_by_https_the_cookie_has_the_name_that_is_safe_there_and_the_plain_one_is_cleared():
    plain = cookies.setting(cookies.SESSION, "abc", 60)
    assert cookies.dressed(plain, is_https=False) == ["pitlane_session=abc; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"]
    safe, cleared = cookies.dressed(plain, is_https=True)
    assert safe == "__Host-pitlane_session=abc; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
    assert cleared == "pitlane_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"
    assert len(cookies.dressed(cookies.setting(cookies.SESSION, "", 0), is_https=True)) == 2, "signing out clears both"
    assert cookies.dressed("other=1; Path=/", is_https=True) == ["other=1; Path=/"]


@pytest.mark.parametrize(
    "origin", ["https://pitlane.example", "https://PITLANE.example", "https://pitlane.example:443"]
)
def test_an_origin_is_ours_however_it_is_written(origin: str):
    assert origin_is_ours(origin, doors(base_url="https://pitlane.example/"))
    assert origin_is_ours("https://pitlane.example", doors(base_url="https://Pitlane.Example:443"))


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "http://pitlane.example",
        "https://pitlane.example:8443",
        "https://evil.example",
        "https://pitlane.example.evil.example",
        "https://evil.example/https://pitlane.example",
        "https://pitlane.example/path",
        "https://pitlane.example:port",
        "https://[",
        "pitlane.example",
    ],
)
def test_every_other_origin_is_foreign(origin: str | None):
    assert not origin_is_ours(origin, doors(base_url="https://pitlane.example"))


def test_a_developers_machine_goes_by_all_its_loopback_names():
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert origin_is_ours(f"http://{host}:8000", doors())
    assert not origin_is_ours("http://localhost:8001", doors())


def test_the_first_of_several_keys_signs_and_all_verify():
    before, after = Tokens(["old" * 12], 60), Tokens(["new" * 12, "old" * 12], 60)
    old = before.issue("01J9ZK", "customer", now_ms=NOW_S * 1000).token
    new = after.issue("01J9ZK", "customer", now_ms=NOW_S * 1000).token
    assert after.verify(old, now_s=NOW_S, via="bearer") is not None
    assert after.verify(new, now_s=NOW_S, via="bearer") is not None
    assert before.verify(new, now_s=NOW_S, via="bearer") is None
    assert Tokens(["new" * 12], 60).verify(new, now_s=NOW_S, via="bearer") is not None


def test_a_jti_of_another_second_than_the_token_says_nothing_of_when_it_was_made():
    identity = verify(made_elsewhere(jti=id_at((NOW_S + 30) * 1000)))
    assert identity is not None
    assert identity.issued_at_ms == (NOW_S - 1) * 1000


def test_a_renewed_token_counts_as_issued_when_its_device_was_signed_in():
    """Else whoever renews while the account is signed out everywhere has a token that is not."""
    first = tokens.issue("01J9ZK", "customer", now_ms=NOW_S * 1000 + 7)
    renewed = tokens.issue("01J9ZK", "customer", now_ms=NOW_S * 1000 + 30_000, sign_in_id=first.sign_in_id)
    identity = verify(renewed.token)
    assert identity is not None
    assert identity.issued_at_ms == NOW_S * 1000 + 7
    assert identity.sign_in_id == first.sign_in_id
    assert identity.token_id != first.sign_in_id


@pytest.mark.parametrize("sid", ["session-7", "", "\x00" * 26, first_id_at((NOW_S + 30) * 1000)])
def test_what_others_write_about_devices_makes_no_token_younger(sid: str):
    identity = verify(made_elsewhere(sid=sid))
    assert identity is not None
    assert identity.issued_at_ms == (NOW_S - 1) * 1000


@pytest.mark.parametrize("jti", ["", "a b", "\x00", "x" * 65])
def test_an_id_that_cannot_be_kept_is_none(jti: str):
    token = made_elsewhere(jti=jti)
    identity = verify(token)
    assert identity is not None
    assert identity.token_id == hashlib.sha256(token.encode()).hexdigest()


def test_a_token_that_never_ends_ends_with_the_last_year_that_can_be_written():
    identity = verify(made_elsewhere(exp=1e300, iat=-1e300))
    assert identity is not None
    assert rfc3339(identity.expires_at_s * 1000) == "9999-12-31T23:59:59.000Z"
    assert identity.issued_at_ms == 0
