"""The browser's side: the pages, their files, and the published documents."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
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
WORKER_HEADERS = {"Service-Worker-Allowed": "/mechanic", "Cache-Control": "no-cache"}
"""The worker is a file among the others, and cares for the app's address."""

Endpoint = Callable[[Request], Awaitable[Response]]


def content_security_policy(origins: Iterable[str]) -> str:
    """Return the policy of a page that is opened under any of our ``origins``: everything from there, its sockets included."""
    # An IPv6 address cannot be named in a policy; browsers let 'self' stand for such a page's own sockets.
    sockets = sorted(origin.replace("http", "ws", 1) for origin in origins if "[" not in origin)
    return (
        f"default-src 'self'; img-src 'self' data:; connect-src 'self' {' '.join(sockets)}; "
        "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )


class Files(StaticFiles):
    """The pages' files. A browser keeps them but asks each time: modules of two releases must not be mixed."""

    def __init__(self, directory: Path, policy: str) -> None:
        super().__init__(directory=directory, check_dir=False)
        self._policy = policy

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        if path.endswith(".html"):
            # Keeps foreign scripts out, also of a page that the app's worker has kept.
            response.headers["Content-Security-Policy"] = self._policy
        return response


def routes(openapi: dict[str, Any], asyncapi: dict[str, Any], docs_html: str, policy: str) -> Sequence[BaseRoute]:
    """Return everything that a browser may open; the documents are encoded once. ``policy`` is the pages' own."""
    files = Files(BROWSER, policy)
    html = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return [
        Route("/", _page(files, "index.html"), name="customer page"),
        Route("/mechanic", _page(files, "mechanic.html"), name="mechanic page"),
        Route("/account", _page(files, "account.html"), name="account page"),
        Route("/reset", _page(files, "reset.html"), name="password page"),
        Route("/favicon.ico", _favicon),
        Route("/openapi.json", _constant(msgspec.json.encode(openapi), "application/json")),
        Route("/asyncapi.json", _constant(msgspec.json.encode(asyncapi), "application/json")),
        Route("/docs", _constant(docs_html.encode(), "text/html", html)),
        Route("/problems/{code}", _explain),
        Route("/static/worker.js", _constant(worker(BROWSER).encode(), "text/javascript", WORKER_HEADERS)),
        Route("/static/manifest.webmanifest", _manifest),
        Mount("/static", files, name="static"),
        Mount("/clients/javascript", Files(CLIENT, policy), name="client"),
    ]


def _page(files: Files, name: str) -> Endpoint:
    async def page(request: Request) -> Response:
        return await files.get_response(name, request.scope)

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
