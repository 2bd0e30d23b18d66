"""A path of the REST interface as an ASGI app: the one wrapper around all operations."""

from collections.abc import Iterable, Sequence

import msgspec
import structlog
from msgspec import Struct
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from http_api.rest.checks import Checks
from http_api.rest.operation import Answer, Operation
from http_api.rest.problems import failure, problem, refusal
from models.outcomes import Refused


def routes(checks: Checks, table: Iterable[Operation]) -> list[Route]:
    """Return a route for each path of the table."""
    by_path: dict[str, list[Operation]] = {}
    for each in table:
        by_path.setdefault(each.path, []).append(each)
    # A path without parameters goes first: /api/mechanics/status is no mechanic's id.
    paths = sorted(by_path, key=lambda path: "{" in path)
    return [Route(path, Resource(checks, by_path[path])) for path in paths]


class Resource:
    """All operations of one path."""

    def __init__(self, checks: Checks, operations: Sequence[Operation]) -> None:
        self._checks = checks
        self._operations = {operation.method: operation for operation in operations}
        if "GET" in self._operations:
            self._operations["HEAD"] = self._operations["GET"]
        self._allow = ", ".join(sorted(self._operations))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        called = self._operations.get(scope["method"])
        if called is None:
            detail = f"This resource knows {self._allow}."
            response = problem("method_not_allowed", detail, headers={"Allow": self._allow})
        else:
            try:
                call = await self._checks.passed(called, scope, receive)
                response = call if isinstance(call, Response) else _answer(called, await called.handler(call))
            except ClientDisconnect:
                return
            except Exception as error:  # noqa: BLE001
                # The outermost edge of an operation: whatever it is, it is logged there and the client gets an answer.
                response = failure(error, where=f"{called.method} {called.path}")
        await response(scope, receive, send)


def _answer(called: Operation, result: Struct | Answer | Refused | Response | None) -> Response:
    if isinstance(result, Response):
        return result
    if isinstance(result, Refused):
        if result.code not in called.codes:
            structlog.get_logger("http").error("undeclared_problem", operation=called.name, code=result.code)
        return refusal(result)
    if not isinstance(result, Answer):
        result = Answer(next(iter(called.answers)), result)
    assert result.status in called.answers, f"{called.name} does not declare {result.status}"
    response = Response(status_code=result.status, media_type=called.media_type)
    if result.value is not None:
        content = result.value if isinstance(result.value, bytes) else msgspec.json.encode(result.value)
        response = Response(content, status_code=result.status, media_type=called.media_type)
    headers = MutableHeaders(raw=response.raw_headers)
    headers["Cache-Control"] = "no-store"
    for name, value in result.headers.items():
        headers[name] = value
    for cookie in result.cookies:
        headers.append("Set-Cookie", cookie)
    return response
