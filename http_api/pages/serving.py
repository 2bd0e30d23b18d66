"""The browser's side: two pages, their files, and the published documents."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from http_api.rest.problems import PROBLEMS, problem

BROWSER = Path(__file__).with_name("browser")
CLIENT = Path(__file__).parents[2] / "clients" / "javascript"
"""What others build on, and the pages, too. It is served under its path in the repository: so the pages' relative imports lead
there from ``/static`` as well as from their folder, because an address has nothing above its root.
"""
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'"
)
HTML_HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}

Endpoint = Callable[[Request], Awaitable[Response]]


class Files(StaticFiles):
    """The pages' files. A browser keeps them but asks each time: modules of two releases must not be mixed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def routes(openapi: dict[str, Any], asyncapi: dict[str, Any], docs_html: str) -> Sequence[BaseRoute]:
    """Return everything that a browser may open; the documents are encoded once."""
    return [
        Route("/", _page("index.html"), name="customer page"),
        Route("/mechanic", _page("mechanic.html"), name="mechanic page"),
        Route("/favicon.ico", _favicon),
        Route("/openapi.json", _constant(msgspec.json.encode(openapi), "application/json")),
        Route("/asyncapi.json", _constant(msgspec.json.encode(asyncapi), "application/json")),
        Route("/docs", _constant(docs_html.encode(), "text/html", HTML_HEADERS)),
        Route("/problems/{code}", _explain),
        Mount("/static", Files(directory=BROWSER, check_dir=False), name="static"),
        Mount("/clients/javascript", Files(directory=CLIENT, check_dir=False), name="client"),
    ]


class _Pages(Files):
    """The two pages themselves: as the files, with the policy that keeps foreign scripts out."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response


def _page(name: str) -> Endpoint:
    async def page(request: Request) -> Response:
        return await files.get_response(name, request.scope)

    files = _Pages(directory=BROWSER, check_dir=False)
    return page


async def _favicon(_request: Request) -> Response:
    return FileResponse(BROWSER / "favicon.svg", media_type="image/svg+xml", headers={"Cache-Control": "max-age=3600"})


async def _explain(request: Request) -> Response:
    """A problem's ``type`` leads to where its code is explained."""
    code = request.path_params["code"]
    if code not in PROBLEMS:
        return problem("not_found", "There is no such code.")
    return RedirectResponse(f"/docs#{code}")


def _constant(content: bytes, media_type: str, headers: dict[str, str] | None = None) -> Endpoint:
    async def constant(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=headers or {"Cache-Control": "no-cache"})

    return constant
