"""A real HTTP proxy between a server and its Stripe, for what goes wrong on the way there and on the way back.

    async with stripe_proxy("http://127.0.0.1:1234") as proxy:
        proxy.plan("refund", Fault("reset", is_done=True))     # the next refund is made, and its answer is lost
        held = proxy.plan("retrieve", Hold())                  # the next retrieval waits before Stripe hears of it

Plans and what was seen are plain values, so that a test may look at them from another thread. One request per connection.
"""

import json
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import anyio
import anyio.abc
import httpx
from anyio.streams.buffered import BufferedByteReceiveStream

HEAD_LEN_MAX = 64 * 1024
UPSTREAM_TIMEOUT_S = 30.0
POLL_S = 0.01
ONE_EACH = httpx.Limits(max_keepalive_connections=0)
"""No connection is kept: one that the upstream closes at the wrong moment would be a fault that nobody has planned."""
CALLS = {
    "create": r"POST /.*v1/checkout/sessions",
    "list": r"GET /.*v1/checkout/sessions",
    "retrieve": r"GET /.*v1/checkout/sessions/[^/]+",
    "expire": r"POST /.*v1/checkout/sessions/[^/]+/expire",
    "refund": r"POST /.*v1/refunds",
    "retrieve_refund": r"GET /.*v1/refunds/[^/]+",
    "retrieve_intent": r"GET /.*v1/payment_intents/[^/]+",
    "list_refunds": r"GET /.*v1/refunds",
    "list_disputes": r"GET /.*v1/disputes",
}
"""What we ask of Stripe, by method and path."""
NOT_PASSED_ON = frozenset(("host", "connection", "content-length", "transfer-encoding", "content-encoding"))


@dataclass
class Fault:
    """A status instead of the answer, a connection that is reset, or none of both for ever."""

    how: int | Literal["reset", "silence"]
    is_done: bool = False
    """Whether Stripe has done it nevertheless."""
    times: int = 1
    says: str = "Something is wrong at Stripe."


@dataclass
class Hold:
    """Waits until ``is_released``: before Stripe hears of it, or (``is_done``) with Stripe's answer in hand.

    When ``is_lost`` as well, it goes no further: Stripe never hears of it, or nobody hears what Stripe said.
    """

    is_done: bool = False
    times: int = 1
    is_reached: bool = False
    is_released: bool = False
    is_lost: bool = False

    def lose(self) -> None:
        """Let it go no further."""
        self.is_lost = self.is_released = True


Plan = TypeVar("Plan", Fault, Hold)


@dataclass(frozen=True)
class Seen:
    """One request that reached Stripe, and what Stripe said."""

    call: str
    query: str
    body: str
    idempotency_key: str | None
    status: int
    answer: Any


@dataclass
class StripeProxy:
    """What is to go wrong, and what was seen."""

    base_url: str
    seen: list[Seen] = field(default_factory=list)
    _plans: list[tuple[str, str, Fault | Hold]] = field(default_factory=list)

    def plan(self, call: str, plan: Plan, *, about: str = "") -> Plan:
        """Let ``plan`` happen to the next ``times`` requests of this kind (one of ``CALLS``) that name ``about`` anywhere."""
        assert call in CALLS
        self._plans.append((call, about, plan))
        return plan

    def heal(self) -> None:
        """Forget all plans; what is held is let go."""
        for *_, plan in self._plans:
            if isinstance(plan, Hold):
                plan.is_released = True
        self._plans.clear()

    def made(self, call: str) -> list[Seen]:
        """Return the requests of this kind that reached Stripe."""
        return [one for one in self.seen if one.call == call]

    def planned(self, call: str, text: str) -> Fault | Hold | None:
        """Return what shall happen to a request that has just come, of which ``text`` is everything."""
        for position, (planned_call, about, plan) in enumerate(self._plans):
            if planned_call == call and about in text:
                plan.times -= 1
                if plan.times == 0:
                    del self._plans[position]
                return plan
        return None


@asynccontextmanager
async def stripe_proxy(upstream: str) -> AsyncIterator[StripeProxy]:
    """Run a proxy to ``upstream`` (scheme, host and port) inside the block."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    proxy = StripeProxy(f"http://127.0.0.1:{port}")
    async with (
        listener,
        httpx.AsyncClient(base_url=upstream, timeout=UPSTREAM_TIMEOUT_S, trust_env=False, limits=ONE_EACH) as client,
        anyio.create_task_group() as tasks,
    ):

        async def serve(stream: anyio.abc.SocketStream) -> None:
            # Whoever asked may be gone by now, as a server that was killed is.
            with suppress(anyio.BrokenResourceError, anyio.IncompleteRead, anyio.EndOfStream):
                async with stream:
                    await _pass_on(proxy, client, stream)

        tasks.start_soon(listener.serve, serve)
        yield proxy
        proxy.heal()
        tasks.cancel_scope.cancel()


async def _pass_on(proxy: StripeProxy, client: httpx.AsyncClient, stream: anyio.abc.SocketStream) -> None:
    reader = BufferedByteReceiveStream(stream)
    head = (await reader.receive_until(b"\r\n\r\n", HEAD_LEN_MAX)).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    body = await reader.receive_exactly(int(headers.get("content-length", "0"))) if "content-length" in headers else b""
    path, _, query = target.partition("?")
    call = next((name for name, pattern in CALLS.items() if re.fullmatch(pattern, f"{method} {path}")), "other")
    plan = proxy.planned(call, f"{target} {body.decode()}")
    if plan is not None and not plan.is_done and not await _is_let_through(plan, stream):
        return
    passed = {name: value for name, value in headers.items() if name not in NOT_PASSED_ON}
    answer = await client.request(method, target, headers=passed, content=body)
    key = headers.get("idempotency-key")
    proxy.seen.append(Seen(call, query, body.decode(), key, answer.status_code, answer.json()))
    if plan is not None and plan.is_done and not await _is_let_through(plan, stream):
        return
    await _answer(stream, answer.status_code, dict(answer.headers), answer.content)


async def _is_let_through(plan: Fault | Hold, stream: anyio.abc.SocketStream) -> bool:
    if isinstance(plan, Hold):
        plan.is_reached = True
        while not plan.is_released:  # noqa: ASYNC110 - set from another thread, which has no event to set here
            await anyio.sleep(POLL_S)
        return not plan.is_lost
    if plan.how == "silence":
        await anyio.sleep_forever()
    elif plan.how == "reset":
        # Closed without lingering, TCP says RST instead of FIN.
        raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        error = json.dumps({"error": {"type": "api_error", "message": plan.says}})
        await _answer(stream, plan.how, {"content-type": "application/json"}, error.encode())
    return False


async def _answer(stream: anyio.abc.SocketStream, status: int, headers: dict[str, str], content: bytes) -> None:
    passed = {name: value for name, value in headers.items() if name not in NOT_PASSED_ON}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in passed.items())]
    lines += [f"content-length: {len(content)}", "connection: close", "", ""]
    await stream.send("\r\n".join(lines).encode("latin-1") + content)
