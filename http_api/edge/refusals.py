"""What is said to a client whose request never reaches the app: a whole answer as bytes, after which the connection ends."""

from functools import cache

from http_api.rest.problems import problem

_DETAILS = {
    "malformed_request": "This is not HTTP/1.1 as we understand it.",
    "request_timeout": "The request did not arrive in time.",
    "head_too_large": "The head of a request may have at most {} bytes and {} lines, and in that of a socket's upgrade less.",
    "unavailable": "This server is busy; please try again.",
}


@cache
def refusal(code: str, *numbers: int) -> bytes:
    """Return the answer for a problem's code. ``numbers`` are named in its detail."""
    response = problem(
        code, _DETAILS[code].format(*numbers), headers={"Retry-After": "1"} if code == "unavailable" else None
    )
    phrase = _PHRASES[response.status_code]
    lines = [f"HTTP/1.1 {response.status_code} {phrase}".encode()]
    lines += [name + b": " + value for name, value in response.raw_headers]
    lines += [b"x-content-type-options: nosniff", b"connection: close", b"", bytes(response.body)]
    return b"\r\n".join(lines)


_PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
