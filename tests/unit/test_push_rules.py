"""When an offer is pushed, what an answer means, and who may be called at all."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address

import pytest

from dispatch.push.road import (
    RETRY_AFTER_MAX_S,
    ForbiddenEndpoint,
    TrustedHosts,
    is_public,
    judged,
    place_of,
    retry_after_s,
)
from dispatch.push.rules import (
    ACKNOWLEDGED_WITHIN_MS,
    RETRY_FIRST_MS,
    RETRY_MAX_MS,
    SEEN_WITHIN_MS,
    Again,
    GivenUp,
    Rejected,
    SubscriptionOver,
    Taken,
    Unseen,
    Verdict,
    is_to_be_pushed,
    judge,
)

OPENED_MS = 1_000_000


@pytest.mark.parametrize(
    ("delivered", "seen", "is_online", "after_ms", "is_pushed"),
    [
        (False, False, True, ACKNOWLEDGED_WITHIN_MS - 1, False),
        (False, False, True, ACKNOWLEDGED_WITHIN_MS, True),
        (True, False, True, ACKNOWLEDGED_WITHIN_MS, False),
        (True, False, True, SEEN_WITHIN_MS - 1, False),
        (True, False, True, SEEN_WITHIN_MS, True),
        (True, True, True, 600_000, False),
        (True, True, False, 0, True),
        (False, False, False, 0, True),
    ],
)
def test_a_favorite_is_woken_when_nobody_acknowledged_nobody_saw_or_nobody_is_left(
    delivered: bool, seen: bool, is_online: bool, after_ms: int, is_pushed: bool
):
    offer = Unseen("o1", "r1", "m1", OPENED_MS, OPENED_MS + 1 if delivered else None, OPENED_MS + 2 if seen else None)
    assert is_to_be_pushed(offer, is_online=is_online, now_ms=OPENED_MS + after_ms) is is_pushed


def verdict(
    status: int | None, retry_after_s: float | None = None, *, attempts: int = 1, was_forbidden: bool = False
) -> Verdict:
    """Of an answer at 0, about what is of use for ten minutes."""
    return judge(
        status,
        retry_after_s,
        attempts=attempts,
        was_forbidden=was_forbidden,
        expires_at_ms=600_000,
        now_ms=0,
    )


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_what_is_taken_is_taken(status: int):
    assert verdict(status) == Taken()


@pytest.mark.parametrize("status", [404, 410])
def test_a_subscription_that_is_not_there_is_over(status: int):
    assert verdict(status) == SubscriptionOver()


def test_a_subscription_is_over_when_it_is_forbidden_once_more():
    assert verdict(403) == Again(RETRY_FIRST_MS)
    assert verdict(403, was_forbidden=True) == SubscriptionOver()


@pytest.mark.parametrize("status", [400, 401, 413])
def test_what_waiting_does_not_mend_is_refused(status: int):
    assert verdict(status) == Rejected(status)


@pytest.mark.parametrize("status", [None, 100, 302, 307, 408, 429, 500, 503])
def test_who_is_in_trouble_is_asked_again_later_and_later_within_a_bound(status: int | None):
    waits_ms = [verdict(status, attempts=attempts) for attempts in range(1, 60)]
    assert waits_ms[:3] == [Again(RETRY_FIRST_MS), Again(2 * RETRY_FIRST_MS), Again(4 * RETRY_FIRST_MS)]
    assert waits_ms[-1] == Again(RETRY_MAX_MS)


def test_who_names_a_time_is_left_alone_until_then_but_never_asked_sooner_than_others():
    assert verdict(429, 120) == Again(120_000)
    assert verdict(503, 0) == Again(RETRY_FIRST_MS)
    assert verdict(503, 1, attempts=10) == Again(RETRY_MAX_MS)


def test_what_would_come_too_late_is_given_up():
    assert verdict(429, 599) == Again(599_000)
    assert verdict(429, 600) == GivenUp()
    assert judge(None, None, attempts=1, was_forbidden=False, expires_at_ms=1_000, now_ms=0) == GivenUp()


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        (b"17", 17),
        (b" 0 ", 0),
        (b"-5", None),
        (b"1e9", None),
        (b"soon", None),
        (b"", None),
        (b"\xb2", None),
        (b"9" * 400, RETRY_AFTER_MAX_S),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX_S),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 0),
        (b"Sun, 99 Nov 1994 08:49:37 GMT", None),
        (b"Mon, 01 Jan 2027 00:00:00 -99999999999999999999", None),
        (b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        (b"Mon, 01 Jan 2027 00:00:00 +9999", None),
    ],
)
def test_a_time_that_a_service_names_is_kept_to_within_a_bound_and_nonsense_is_none(value: bytes, wait_s: float | None):
    assert retry_after_s([(b"Retry-After", value)]) == wait_s


def test_a_time_may_be_named_by_a_date():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    wait_s = retry_after_s([(b"X-Other", b"1"), (b"retry-after", date.encode())])
    assert wait_s is not None
    assert 0 < wait_s <= 100


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1"),
        *("192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
        *("240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:7f00:1::1"),
        # IPv4 in the form that RFC 4291 has deprecated, and Teredo with a private client.
        *("::127.0.0.1", "::10.0.0.1", "2001:0:4136:e378:8000:63bf:f5ff:fffe"),
    ],
)
def test_an_address_that_is_not_everybodys_is_not_called(address: str):
    assert not is_public(ip_address(address))
    shown = f"[{address}]" if ":" in address else address
    with pytest.raises(ForbiddenEndpoint):
        judged(f"https://{shown}/push", TrustedHosts())


@pytest.mark.parametrize("address", ["8.8.8.8", "142.250.185.74", "2a00:1450:4001:82b::200a", "64:ff9b::8.8.8.8"])
def test_an_address_that_is_everybodys_is_called(address: str):
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "endpoint",
    [
        *("https://push.example/a b", "https://push.example/\n", "https://\N{BLACK HEART SUIT}.example/x"),
        *("http://push.example/x", "ftp://push.example/x", "https:///x", "https://", "push.example"),
        *(
            "https://user@push.example/x",
            "https://u:p@push.example/x",
            "https://[::1/x",
            "https://push.example:99999/x",
            "https://push.example:0/x",
        ),
    ],
)
def test_an_endpoint_that_is_no_plain_https_url_is_refused(endpoint: str):
    with pytest.raises(ForbiddenEndpoint):
        judged(endpoint, TrustedHosts())


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "localhost.",
            "LOCALHOST..",
            "push.localhost",
            "push",
            "push.",
            "printer.local",
            "push.internal.",
        ),
        *("127.1", "8.8.2056", "8.8.8.0x8", "0x08080808", "134744072", "127.0.0.1.", "[2a00:1450::1%25eth0]", "."),
    ],
)
def test_a_host_that_is_nobody_elses_is_refused_by_its_text_alone_unless_it_is_trusted(host: str):
    with pytest.raises(ForbiddenEndpoint):
        judged(f"https://{host}/push", TrustedHosts())
    for name in ("push", "push.internal", "localhost."):
        judged(f"https://{name}/push", TrustedHosts.of("push,push.internal.,localhost"))


def test_only_the_named_host_and_port_are_trusted():
    trusted = TrustedHosts.of(" push.internal , 10.0.0.7:8443,[::1]:81 ")
    for endpoint in (
        "http://push.internal/x",
        "https://PUSH.internal:9/x",
        "https://10.0.0.7:8443/x",
        "http://[::1]:81/",
    ):
        judged(endpoint, trusted)
    for endpoint in ("http://10.0.0.7:8444/x", "https://10.0.0.7/x", "http://[::1]/", "ftp://push.internal/x"):
        with pytest.raises(ForbiddenEndpoint):
            judged(endpoint, trusted)


def test_a_push_service_is_its_host_and_port():
    assert place_of("https://Push.Example:8443/a/b?c") == "push.example:8443"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://push.example/a", "https://PUSH.example.:443/b"),
        ("https://push.example/a", "https://push.example:/b"),
        ("https://push.example/a", "https://push.example:00443/b"),
        ("https://push.example:18790/a", "https://push.example:0018790/b"),
        ("http://push.example/a", "http://push.example:80/b"),
        ("https://[2a00:1450::1]/a", "https://[2A00:1450:0:0:0:0:0:0001]:443/b"),
    ],
)
def test_a_push_service_is_one_however_it_is_written(one: str, other: str):
    assert place_of(one) == place_of(other)


def test_push_services_on_two_ports_are_two():
    assert place_of("https://push.example/x") != place_of("https://push.example:80/x")
