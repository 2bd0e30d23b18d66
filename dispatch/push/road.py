"""The road to push services, whose addresses strangers choose: https to public addresses alone, looked up once, nothing read back.

An endpoint comes from a browser, or from somebody who wants us to call our own network. So a name is looked up once, and the
connection goes to the very address that was judged (a second look could answer otherwise: DNS rebinding); redirects are not
followed, and of an answer only its status and ``Retry-After`` count. An operator's own push services are named
(``PITLANE_PUSH_TRUSTED_HOSTS``): they may be private and speak http.
"""

import math
import re
import socket
import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

import anyio
import anyio.to_thread
import httpcore

from models.errors import PitlaneError

Address = IPv4Address | IPv6Address

ANSWER_TIMEOUT_S: Final = 5.0
"""For the whole call: the look-up, the connection and the head of the answer."""
LOOK_UP_TIMEOUT_S: Final = 2.0
LOOK_UPS_MAX: Final = 16
READ_MAX: Final = 16_384
"""Bytes read after one request, all in all: interim answers (RFC 9110 §15.2) may be as many as the other side likes, and each
of them is work."""
READ_LEN: Final = 2_048
"""Bytes read at a time: after each others have their turn."""
BODY_MAX: Final = 4_096
"""Bytes of an answer that are read over."""
BODY_TIMEOUT_S: Final = 1.0
KEPT_S: Final = 30.0
RETRY_AFTER_MAX_S: Final = 3600
PORTS: Final = {"https": 443, "http": 80}
UNPRIVILEGED_PORTS_FROM: Final = 1024
"""Below it other services listen (RFC 6335 §6), many of which no browser would call (Fetch Standard, "bad port")."""
HOST_LEN_MAX: Final = 253
LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
"""Of a host's name, as DNS can carry it (RFC 1035 §2.3.4, RFC 1123 §2.1); with underscores, which some names have."""
NAT64: Final = IPv6Network("64:ff9b::/96")
"""IPv4 addresses in IPv6's clothes (RFC 6052 §2.1)."""
INSIDE: Final = frozenset({"localhost", "local", "internal"})
"""Domains of which no name is everybody's (RFC 6761 §6.3, RFC 6762 §3, ICANN's ``internal``)."""
GIVEN_OUT: Final = IPv6Network("2000::/3")
"""All of IPv6 that anybody can have so far (RFC 4291 §2.4, IANA); outside of it there are old kinds of private addresses."""


class ForbiddenEndpoint(PitlaneError):
    """No message goes to this endpoint; the message says why."""


class PushServiceAway(PitlaneError):
    """The push service did not answer; asking again may help."""


@dataclass(frozen=True)
class Answered:
    """What a push service said. ``retry_after_s``: when to come back, if it says so (RFC 9110 §10.2.3)."""

    status: int
    retry_after_s: float | None


@dataclass(frozen=True)
class TrustedHosts:
    """Push services of the operator's own, as ``host`` or ``host:port``."""

    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, setting: str | None) -> "TrustedHosts":
        """Return what a comma-separated setting names."""
        return cls(frozenset(name.strip().lower().rstrip(".") for name in (setting or "").split(",") if name.strip()))

    def has(self, url: SplitResult) -> bool:
        """Whether an endpoint is one of them."""
        host, shown = _host_of(url), _shown(url)
        return bool(self.names & {host, shown, f"{shown}:{_port_of(url)}"})


def place_of(endpoint: str) -> str:
    """Return the push service that an endpoint is of: what fails together, and must keep no other waiting.

    However its host and port are written, it is the same one: else a stranger makes many of one.
    """
    url = urlsplit(endpoint)
    port = _port_of(url)
    return _shown(url) if port == PORTS.get(url.scheme) else f"{_shown(url)}:{port}"


def judged(endpoint: str, trusted: TrustedHosts) -> SplitResult:
    """Return the parts of an endpoint that may be called as far as its text tells; raises ``ForbiddenEndpoint``."""
    if not (endpoint.isascii() and endpoint.isprintable()) or " " in endpoint:
        # A browser writes everything else by its number (URL Standard, "serializing").
        raise ForbiddenEndpoint("It is no URL.")
    try:
        url = urlsplit(endpoint)
        is_nowhere = url.port == 0
    except ValueError as error:
        raise ForbiddenEndpoint("It is no URL.") from error
    if is_nowhere:
        raise ForbiddenEndpoint("Nobody listens at port 0.")
    if not _host_of(url) or url.username is not None or url.password is not None:
        raise ForbiddenEndpoint("It has no host, or names a user.")
    if trusted.has(url):
        if url.scheme not in PORTS:
            raise ForbiddenEndpoint("It is neither https nor http.")
        return url
    if url.scheme != "https":
        raise ForbiddenEndpoint("It is not https.")
    if (port := _port_of(url)) != PORTS["https"] and port < UNPRIVILEGED_PORTS_FROM:
        raise ForbiddenEndpoint("No push service listens at this port.")
    if not _may_be_public(_host_of(url)):
        raise ForbiddenEndpoint("It is not on a public address.")
    return url


def _may_be_public(host: str) -> bool:
    """Whether the text of a host does not tell already that it is ours, or that no browser writes it so."""
    if "%" in host:
        # Of an address of a network interface, say.
        return False
    try:
        return is_public(ip_address(host))
    except ValueError:
        pass
    if len(host) > HOST_LEN_MAX or not all(LABEL.fullmatch(label) for label in host.split(".")):
        return False
    *above, last = host.split(".")
    # Old ways to write an IPv4 address, 8.8.2056 say, are read by the system, but written by no browser (URL Standard, "ends in a
    # number").
    is_number = last.isdigit() or last.startswith("0x")
    return bool(above) and last not in INSIDE and not is_number


async def judged_by_name(endpoint: str, trusted: TrustedHosts, look_ups: "LookUps") -> None:
    """Judge an endpoint by what its name stands for as well; raises ``ForbiddenEndpoint``.

    A name that cannot be looked up just now is let pass: it is judged again whenever something is sent there.
    """
    url = judged(endpoint, trusted)
    if trusted.has(url):
        return
    try:
        addresses = await look_ups.addresses_of(url.hostname or "", _port_of(url))
    except OSError:
        return
    if not any(map(is_public, addresses)):
        raise ForbiddenEndpoint("It is not on a public address.")


def is_public(address: Address) -> bool:
    """Whether anybody may be called there: no address of this machine, of a private network, or of many (RFC 6890)."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in GIVEN_OUT:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def resolve(host: str, port: int) -> list[str]:
    """Ask the system for the addresses of a name; blocks. Raises ``OSError``."""
    return [str(where[0]) for *_, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass
class _LookUp:
    """One that has a place: whether a thread has begun it, or whoever waited has gone before that."""

    is_begun: bool = False
    is_called_off: bool = False


class LookUps:
    """Looks names up, so many at a time and no more, in threads of its own.

    A name server that does not answer keeps a thread for half a minute, whether or not somebody still waits. The event loop's own
    threads are few, and everything that has a name (SQL, Redis, Stripe) is looked up by them.
    """

    def __init__(self, side_by_side_max: int = LOOK_UPS_MAX) -> None:
        self._room = side_by_side_max
        self._counting = threading.Lock()
        self._limiter = anyio.CapacityLimiter(math.inf)

    async def addresses_of(self, host: str, port: int) -> list[Address]:
        """Return a name's addresses, without repeats; raises ``OSError`` when there are none, no answer in time, or no room."""
        with self._counting:
            if not self._room:
                raise OSError("Too many names are being looked up.")
            self._room -= 1
        look_up = _LookUp()
        try:
            with anyio.fail_after(LOOK_UP_TIMEOUT_S):
                found = await anyio.to_thread.run_sync(
                    self._resolve, look_up, host, port, abandon_on_cancel=True, limiter=self._limiter
                )
        except RuntimeError as error:
            raise OSError("No thread can be started for the look-up.") from error
        finally:
            with self._counting:
                if not look_up.is_begun:
                    # No thread is going to give its place back.
                    look_up.is_called_off = True
                    self._room += 1
        return [ip_address(name.partition("%")[0]) for name in dict.fromkeys(found)]

    def _resolve(self, look_up: _LookUp, host: str, port: int) -> list[str]:
        with self._counting:
            if look_up.is_called_off:
                return []
            look_up.is_begun = True
        try:
            return resolve(host, port)
        except UnicodeError as error:
            raise OSError(f"It is no name: {error}") from error
        finally:
            with self._counting:
                self._room += 1


class PushRoad:
    """Connections to push services, kept for a while."""

    def __init__(self, trusted: TrustedHosts, *, connections_max: int) -> None:
        self.trusted = trusted
        self._connections_max = connections_max
        self._look_ups = LookUps(connections_max)
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def post(self, endpoint: str, body: bytes, headers: Mapping[str, str]) -> Answered:
        """Deliver one message. Raises ``ForbiddenEndpoint`` or ``PushServiceAway``."""
        url = judged(endpoint, self.trusted)
        if self._pool is None:
            # At the first message: most nodes never push, and reading the certificates takes a while.
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=ssl.create_default_context(),
                max_connections=self._connections_max,
                keepalive_expiry=KEPT_S,
                network_backend=_Judging(self.trusted, self._look_ups),
            )
        answered: Answered | None = None
        try:
            with anyio.fail_after(ANSWER_TIMEOUT_S):
                async with self._pool.stream(
                    "POST", url.geturl(), content=body, headers=list(headers.items())
                ) as answer:
                    answered = Answered(answer.status, retry_after_s(answer.headers))
                    await _read_over(answer)
        except (
            httpcore.NetworkError,
            httpcore.TimeoutException,
            httpcore.ProtocolError,
            httpcore.PoolTimeout,
            TimeoutError,
            OSError,
            ValueError,
        ) as error:
            # Once it has answered, that counts: sent again, it would come twice.
            if answered is None:
                raise PushServiceAway(f"The push service does not answer: {type(error).__name__}.") from error
        assert answered is not None
        return answered

    async def close(self) -> None:
        """Close the connections; idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()


async def _read_over(answer: httpcore.Response) -> None:
    """Read past a short body, so that the connection can be used again; on a long or slow one it is closed."""
    length = 0
    with anyio.move_on_after(BODY_TIMEOUT_S):
        try:
            async for chunk in answer.aiter_stream():
                length += len(chunk)
                if length > BODY_MAX:
                    break
        except (httpcore.NetworkError, httpcore.ProtocolError):
            # It has answered; only the connection is lost.
            return


class _Judging(httpcore.AsyncNetworkBackend):
    """Connects to addresses that may be called, and to no other."""

    def __init__(self, trusted: TrustedHosts, look_ups: LookUps) -> None:
        self._trusted = trusted
        self._look_ups = look_ups
        self._road = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Look the name up, judge what it stands for, and connect to that."""
        name = f"[{host}]" if ":" in host else host
        addresses = await self._look_ups.addresses_of(host, port)
        if not self._trusted.has(urlsplit(f"https://{name}:{port}")):
            addresses = [address for address in addresses if is_public(address)]
            if not addresses:
                raise ForbiddenEndpoint("It is not on a public address.")
        failure: Exception | None = None
        for address in addresses:
            try:
                found = await self._road.connect_tcp(str(address), port, timeout, local_address, socket_options)
                return _Bounded(found)
            except httpcore.ConnectError as error:
                failure = error
        raise failure or httpcore.ConnectError("The name stands for no address.")


class _Bounded(httpcore.AsyncNetworkStream):
    """A connection that reads so much after each request and no more, in small helpings."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = READ_MAX

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read some bytes; raises ``httpcore.ReadError`` once it was too much."""
        if self._left <= 0:
            raise httpcore.ReadError("Its answer is too long.")
        data = await self._stream.read(min(max_bytes, READ_LEN), timeout)
        self._left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write; what is read from now on is the answer to that."""
        await self._stream.write(buffer, timeout)
        self._left = READ_MAX

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Encrypt it; the handshake has bounds of its own."""
        return _Bounded(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        """Return what the connection below says of itself."""
        return self._stream.get_extra_info(info)


def _host_of(url: SplitResult) -> str:
    """Return the host in lower case, without the dot that says that nothing follows."""
    return (url.hostname or "").rstrip(".")


def _shown(url: SplitResult) -> str:
    """Return the host as one writes it in a URL: an IPv6 address in its one short form (RFC 5952), in brackets."""
    host = _host_of(url)
    if ":" not in host:
        return host
    try:
        return f"[{ip_address(host)}]"
    except ValueError:
        return f"[{host}]"


def _port_of(url: SplitResult) -> int:
    return url.port or PORTS.get(url.scheme, 0)


def retry_after_s(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Return how long to wait, within a bound: seconds, or until a date (RFC 9110 §10.2.3)."""
    for name, value in headers:
        if name.lower() != b"retry-after":
            continue
        text = value.decode("latin-1").strip()
        try:
            wait_s = float(text) if text.isdigit() else _until(text)
        except (ValueError, ArithmeticError, LookupError, TypeError):
            # Python's reader of dates raises whatever a stranger's numbers lead to.
            return None
        return min(max(0.0, wait_s), RETRY_AFTER_MAX_S)
    return None


def _until(date: str) -> float:
    at = parsedate_to_datetime(date)
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
