"""A caller's address and scheme are what trusted proxies say, and nothing that anybody else says."""

import pytest

from http_api.caller import Caller, caller, caller_of
from models.networks import is_loopback, networks

DEFAULT = networks("127.0.0.1,::1")
FLEET = networks("127.0.0.1, 10.0.0.0/8, 2001:db8:1::/48")


def called(peer: str, *headers: tuple[str, str], trusted=FLEET) -> Caller:
    return caller(peer, [(name.encode(), value.encode("latin-1")) for name, value in headers], trusted)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        # Whatever the client has sent stands left of what the proxy has appended.
        ("127.0.0.1", "1.1.1.1, 127.0.0.1, 198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.1, 10.1.2.3", "198.51.100.1"),
        ("10.0.0.7", "198.51.100.1,10.1.2.3,10.9.9.9", "198.51.100.1"),
        # All of them ours: the call began at the left-most.
        ("127.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        # Garbage is not believed, and neither is what stands left of it.
        ("127.0.0.1", "1.1.1.1, nonsense, 10.2.2.2", "10.2.2.2"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "unix:", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1,", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.256", "127.0.0.1"),
        ("127.0.0.1", "\xff\xfe", "127.0.0.1"),
        ("127.0.0.1", "0x7f.1", "127.0.0.1"),
        # Ports, brackets, zones, and IPv4 in IPv6's clothes.
        ("127.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("127.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("127.0.0.1", "2001:DB8:0::1", "2001:db8::1"),
        ("127.0.0.1", "fe80::1%eth0", "fe80::1"),
        ("127.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("::ffff:127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "198.51.100.1, ::ffff:10.0.0.1", "198.51.100.1"),
        ("2001:db8:1::5", "2001:db8:2::9", "2001:db8:2::9"),
        # A peer without an address is no proxy that anybody has named.
        ("", "198.51.100.1", ""),
        ("testclient", "198.51.100.1", ""),
    ],
)
def test_the_client_is_the_right_most_address_that_is_no_trusted_proxy(peer, forwarded_for, address):
    headers = [] if forwarded_for is None else [("x-forwarded-for", forwarded_for)]
    assert called(peer, *headers).address == address


def test_several_headers_are_one_list_and_forwarded_is_not_read():
    headers = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=2.2.2.2"), ("x-forwarded-for", "10.0.0.1")]
    assert called("127.0.0.1", *headers).address == "1.1.1.1"
    assert called("127.0.0.1", ("forwarded", "for=2.2.2.2;proto=https")) == Caller("127.0.0.1", "http")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "proto", "scheme"),
    [
        ("127.0.0.1", "1.1.1.1", "https", "https"),
        ("127.0.0.1", "1.1.1.1", " HTTPS ", "https"),
        ("127.0.0.1", "1.1.1.1", "wss", "https"),
        ("127.0.0.1", "1.1.1.1", "http", "http"),
        ("127.0.0.1", "1.1.1.1", "gopher", "http"),
        ("127.0.0.1", "1.1.1.1", "", "http"),
        ("203.0.113.9", "1.1.1.1", "https", "http"),
        ("", "1.1.1.1", "https", "http"),
        # One proxy, which has appended to what its client claimed; two, the outer of which has spoken TLS.
        ("127.0.0.1", "1.1.1.1", "https, http", "http"),
        ("127.0.0.1", "1.1.1.1, 10.0.0.1", "https, http", "https"),
        ("127.0.0.1", "1.1.1.1, 10.0.0.1", "https", "https"),
    ],
)
def test_the_scheme_is_what_the_trusted_proxy_says(peer, forwarded_for, proto, scheme):
    assert called(peer, ("x-forwarded-for", forwarded_for), ("x-forwarded-proto", proto)).scheme == scheme


def test_limits_count_an_ipv6_household_as_one():
    assert called("2001:db8:9:1::5").counted_as == called("2001:db8:9:1:ffff::7").counted_as == "2001:db8:9:1::/64"
    assert called("2001:db8:9:2::5").counted_as != called("2001:db8:9:1::5").counted_as
    assert called("::ffff:198.51.100.1").counted_as == called("198.51.100.1").counted_as == "198.51.100.1"
    assert called("").counted_as == ""


@pytest.mark.parametrize("client", [None, ("", 0), ("127.0.0.1", 5)])
def test_a_connection_without_an_address_is_nobodys(client):
    scope = {"type": "http", "client": client, "headers": []}
    assert caller_of(scope, DEFAULT).address in ("", "127.0.0.1")
    assert caller_of({"type": "http", "headers": []}, DEFAULT) == Caller("", "http")


def test_a_list_of_networks_is_checked():
    assert [str(network) for network in networks("::ffff:10.0.0.0/104, 192.0.2.7,")] == ["10.0.0.0/8", "192.0.2.7/32"]
    for wrong in (
        "0.0.0.0/0",
        "::/0",
        "10.0.0.1/8",
        "proxy.example",
        "10.0.0.0/33",
        "127.0.0.1;::1",
        "::ffff:0.0.0.0/96",
    ):
        with pytest.raises(ValueError, match=r"."):
            networks(wrong)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"])
def test_loopback_is_loopback_however_it_is_written(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "localhost.example", "10.0.0.1"])
def test_what_others_can_reach_is_no_loopback(host):
    assert not is_loopback(host)
