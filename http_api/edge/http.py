"""HTTP/1.1 for the app: uvicorn's protocol, which trusts its clients to be brief, held to what a connection may take.

    head ──► body ──► in work ──► answered ──► head …        requests may be pipelined: the next head comes before the answer
    └── we wait for the client ──┘     └── 408, or the end

Who is waited for, and until when, is settled anew after each read and each answer; ``Connections`` looks at the clock.
"""

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from http_api.auth import ADMISSION
from http_api.edge.connections import NEVER, Connections, Stage, refused
from http_api.edge.doorstep import Doorstep
from http_api.edge.farewell import Farewell
from http_api.edge.limits import HEADERS_MAX, PIPELINED_MAX, REQUEST_COST_LEN, UPGRADE_LINE_LEN_MAX
from http_api.edge.refusals import refusal

SLICE_LEN: Final = 16 * 1024
"""Bytes that the parser is given at a time: what it keeps of a head it does not say before the line is whole."""
HEADER_LINE_LEN: Final = len(": \r\n")
REQUEST_LINE_LEN: Final = len("GET  HTTP/1.1\r\n")


class _Refused(Exception):
    """Raised within the parser's callbacks, which it ends; the code of the problem."""


def http_protocol(connections: Connections) -> Callable[..., asyncio.Protocol]:
    """Return what uvicorn is to call for each new connection."""

    def protocol(
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.Protocol:
        def make() -> asyncio.Protocol:
            return HttpConnection(connections, config, server_state, app_state, _loop)

        return Doorstep(connections, server_state.connections, make)

    return protocol


class HttpConnection(HttpToolsProtocol):
    """uvicorn's, with a bound for everything; see the module."""

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._visits = connections
        self._limits = connections.limits
        self.deadline_s = NEVER
        self._is_over = False
        """Nothing that still comes is looked at."""
        self._in_head = False
        self._in_body = False
        self._head_len = 0
        """Of the head that is being read, as far as the parser has told; and the bytes it was given since it began."""
        self._head_fed_len = 0
        self._request_len = 0
        """Of bodies, and of the heads before, since the connection was last without a request."""
        self._began_s = 0.0
        """When the present request's first byte came."""
        self._idle_since_s = NEVER
        self._in_work: RequestResponseCycle | None = None
        self._drains = False
        self._unread_len: float = inf
        """What the client had not read of our answers when we last looked."""
        self._unread_until_s = inf

    # --- what the event loop calls ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Give it to the parser in slices, and refuse what is too much or no HTTP."""
        if self._is_over:
            return
        start = 0
        try:
            for start in range(0, len(data), SLICE_LEN):
                if not self._feed(data if len(data) <= SLICE_LEN else data[start : start + SLICE_LEN]):
                    return
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._upgrade(data[start + upgrade.args[0] :])
                return
            self._unsupported_upgrade_warning()
        except httptools.HttpParserError as error:
            why = error.__context__
            self._refuse(str(why) if isinstance(why, _Refused) else "malformed_request")
            return
        self._settle(monotonic())

    def _feed(self, piece: bytes) -> bool:
        """Give the parser a piece; ``False`` if this connection listens no more."""
        was_in_head = self._in_head
        self.parser.feed_data(piece)
        if self._in_head:
            # Where it began within this piece is not known; so much more than its bound may be kept of it.
            self._head_fed_len = self._head_fed_len + len(piece) if was_in_head else 0
            if self._head_fed_len > self._limits.head_len_max:
                self._refuse("head_too_large")
        return not self._is_over

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._is_over = True
        self._visits.left(self)
        self._tell_the_app()
        super().connection_lost(exc)
        self._let_go()

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        super().pause_writing()
        self._settle(monotonic())

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._settle(monotonic())

    # --- what the parser calls ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._is_over:
            return
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["extensions"] = {ADMISSION: self._admit}
        self._in_head, self._in_body = True, False
        # What came before it in the pipeline is still here.
        self._request_len = self._request_len + self._head_len if self._is_in_work else 0
        self._head_len = REQUEST_LINE_LEN
        self._head_fed_len = 0
        self._began_s = monotonic()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        if not self._is_over:
            super().on_url(url)
            self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header line."""
        if self._is_over:
            return
        super().on_header(name, value)
        self._count(HEADER_LINE_LEN + len(name) + len(value))
        if len(self.headers) > HEADERS_MAX:
            raise _Refused("head_too_large")

    def on_headers_complete(self) -> None:
        """The head is whole: its answer begins, or waits for its turn."""
        if self._is_over:
            return
        self._in_head, self._in_body = False, True
        if len(self.pipeline) >= PIPELINED_MAX:
            # Whoever sends so many at once asks for the others again, when this connection has ended with the last answer.
            self.pipeline[0][0].keep_alive = False
            self._is_over, self._in_body = True, False
            refused("pipelined")
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if not self._is_over:
            self._request_len += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_body = False
        if not self._is_over:
            super().on_message_complete()

    def _count(self, length: int) -> None:
        # Trailers of a chunked body come as headers, too, and count like those.
        self._head_len += length
        if self._head_len > self._limits.head_len_max:
            raise _Refused("head_too_large")

    # --- what uvicorn calls -------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """An answer is whole; the next one begins, or we wait."""
        super().on_response_complete()
        # Idle connections are looked after with all others.
        self._unset_keepalive_if_required()
        self._settle(monotonic())

    def shutdown(self) -> None:
        """The server drains: what is in work is answered, for the rest of a request nobody waits long."""
        self._drains = True
        super().shutdown()
        self._settle(monotonic())

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._in_work = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        refused("unsupported_upgrade")

    # --- sockets ------------------------------------------------------------------------------------------------------

    def _upgrade(self, early: bytes) -> None:
        """Hand the connection to the protocol of sockets. ``early``: what came behind the head."""
        if self._is_in_work:
            # The answer to an earlier request would get among the frames.
            refused("pipelined")
            self.cut()
            return
        lines = [len(self.url) + REQUEST_LINE_LEN, *(len(name) + len(value) + 2 for name, value in self.headers)]
        if max(lines) > UPGRADE_LINE_LEN_MAX:
            self._refuse("head_too_large")
            return
        if not self.url.isascii():
            self._refuse("malformed_request")
            return
        self._is_over = True
        self.connections.discard(self)
        method = self.scope["method"].encode()
        head = [method, b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            head += [name, b": ", value, b"\r\n"]
        protocol = cast(Any, self.ws_protocol_class)(
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        protocol.begin(self, self._visits)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(b"".join([*head, b"\r\n"]))
        if early:
            cast(asyncio.Protocol, self.transport.get_protocol()).data_received(early)
        self._let_go()

    # --- what ``Connections`` calls -----------------------------------------------------------------------------------

    def time_out(self, now_s: float) -> None:
        """What we wait for has not come."""
        if unread := self.transport.get_write_buffer_size():
            if unread < self._unread_len and now_s < self._unread_until_s:
                self._unread_len = unread
                self.deadline_s = min(now_s + self._patience_s, self._unread_until_s)
                return
            refused("unread")
            self.cut()
        elif self.flow.read_paused and now_s < self._began_s + self._limits.request_s:
            # It is we who do not read.
            self.deadline_s = now_s + self._limits.silence_s
        elif self._in_head or (self._in_body and self._is_in_work and not self.cycle.response_started):
            self._refuse("request_timeout")
        elif self._in_body:
            # It has its answer, and goes on sending what nobody reads.
            refused("request_timeout")
            self.cut()
        else:
            self._is_over = True
            self.transport.close()

    def cut(self) -> None:
        """End it without a word."""
        self._is_over = True
        self.transport.abort()
        self._visits.left(self)

    def _let_go(self) -> None:
        """Let the memory go with the connection: the request and this object know each other, and the collector seldom comes."""
        self.scope = self.headers = self.cycle = self.parser = cast(Any, None)
        self._in_work = None

    # --- inside -------------------------------------------------------------------------------------------------------

    def _admit(self, account_id: str) -> None:
        """Whoever sends this request has proved who they are."""
        self._visits.admit(self, account_id)

    def _tell_the_app(self) -> None:
        """Tell the app that nobody waits for what it has in work; uvicorn tells it of the newest request alone."""
        self.pipeline.clear()
        if self._in_work is not None and not self._in_work.response_complete:
            self._in_work.disconnected = True
            self._in_work.message_event.set()

    @property
    def _is_in_work(self) -> bool:
        """Whether the app has a request of this connection's."""
        # uvicorn has none before the first request.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    @property
    def _patience_s(self) -> float:
        return self._limits.drain_s if self._drains else self._limits.silence_s

    def _settle(self, now_s: float) -> None:
        """Find out whom this connection waits for, and until when."""
        patience_s = self._patience_s
        is_in_work = self._is_in_work
        if unread := self.transport.get_write_buffer_size() if self.flow.write_paused or not is_in_work else 0:
            if self._unread_until_s == inf:
                self._unread_until_s = now_s + self._limits.request_s
            self._unread_len = unread
            self.deadline_s = min(now_s + patience_s, self._unread_until_s)
        else:
            self._unread_len = self._unread_until_s = inf
            if self._in_body and not self.flow.read_paused:
                # Each byte of a body buys time, up to a bound; a head has to be whole in time.
                self.deadline_s = min(now_s + patience_s, self._began_s + self._limits.request_s)
            elif is_in_work:
                self.deadline_s = NEVER
            elif self._in_head:
                self.deadline_s = self._began_s + patience_s
            else:
                # From when it fell idle: empty lines, which may come before a request (RFC 9112 §2.2), buy no time.
                if self._idle_since_s == NEVER:
                    self._idle_since_s = now_s
                self.deadline_s = self._idle_since_s + patience_s
        if self._in_body or self._in_head or is_in_work:
            self._idle_since_s = NEVER
        if self._in_body:
            self._visits.is_at(self, Stage.HOLDING, REQUEST_COST_LEN + self._head_len + self._request_len)
        elif is_in_work:
            self._visits.is_at(self, Stage.WORKING, REQUEST_COST_LEN + self._head_len + self._request_len)
        elif self._in_head or unread:
            self._visits.is_at(self, Stage.HOLDING, self._head_len + self._head_fed_len + unread)
        else:
            self._visits.is_at(self, Stage.IDLE, 0)

    def _refuse(self, code: str) -> None:
        """Say why, and end the connection; an answer that has begun is cut off instead."""
        refused(code)
        if self.transport.is_closing() or (self._is_in_work and self.cycle.response_started):
            self.cut()
            return
        numbers = (self._limits.head_len_max, HEADERS_MAX) if code == "head_too_large" else ()
        self._is_over = True
        transport = self.transport
        self.connections.discard(self)
        Farewell.say(refusal(code, *numbers), self, transport, self._visits, self.connections)
        self._tell_the_app()
        # With an error, so that uvicorn does not close what has just been written to.
        super().connection_lost(ConnectionAbortedError(code))
        self._let_go()
