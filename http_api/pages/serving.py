"""The browser's side: the pages, their files, and the published documents."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from http_api.pages.kept import worker
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
WORKER_HEADERS = {"Service-Worker-Allowed": "/mechanic", "Cache-Control": "no-cache"}
"""The worker is a file among the others, and cares for the app's address."""
HTML_HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}

Endpoint = Callable[[Request], Awaitable[Response]]


class Files(StaticFiles):
    """The pages' files. A browser keeps them but asks each time: modules of two releases must not be mixed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        if path.endswith(".html"):
            # Keeps foreign scripts out, also of a page that the app's worker has kept.
            response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response


def routes(openapi: dict[str, Any], asyncapi: dict[str, Any], docs_html: str) -> Sequence[BaseRoute]:
    """Return everything that a browser may open; the documents are encoded once."""
    return [
        Route("/", _page("index.html"), name="customer page"),
        Route("/mechanic", _page("mechanic.html"), name="mechanic page"),
        Route("/account", _page("account.html"), name="account page"),
        Route("/reset", _page("reset.html"), name="password page"),
        Route("/favicon.ico", _favicon),
        Route("/openapi.json", _constant(msgspec.json.encode(openapi), "application/json")),
        Route("/asyncapi.json", _constant(msgspec.json.encode(asyncapi), "application/json")),
        Route("/docs", _constant(docs_html.encode(), "text/html", HTML_HEADERS)),
        Route("/problems/{code}", _explain),
        Route("/static/worker.js", _constant(worker(BROWSER).encode(), "text/javascript", WORKER_HEADERS)),
        Route("/static/manifest.webmanifest", _manifest),
        Mount("/static", Files(directory=BROWSER, check_dir=False), name="static"),
        Mount("/clients/javascript", Files(directory=CLIENT, check_dir=False), name="client"),
    ]


def _page(name: str) -> Endpoint:
    async def page(request: Request) -> Response:
        return await files.get_response(name, request.scope)

    files = Files(directory=BROWSER, check_dir=False)
    return page


async def _favicon(_request: Request) -> Response:
    return FileResponse(BROWSER / "favicon.svg", media_type="image/svg+xml", headers={"Cache-Control": "max-age=3600"})


async def _manifest(_request: Request) -> Response:
    # Its type is not in every machine's list.
    path = BROWSER / "manifest.webmanifest"
    return FileResponse(path, media_type="application/manifest+json", headers={"Cache-Control": "no-cache"})


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
