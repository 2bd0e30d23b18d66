"""One-click links: each signs the browser that opens it in as a member of the cast. Mounted in the demo only."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from demo.cast import MEMBERS
from http_api import cookies
from http_api.auth import Tokens
from http_api.rest.problems import problem
from infra.clock import Clock
from models.settings import DoorSettings
from models.words import Role

PAGES = {Role.CUSTOMER: "/", Role.MECHANIC: "/mechanic"}


def entrance(base_url: str, slug: str) -> str:
    """Return the link that signs a browser in as ``slug``."""
    return f"{base_url}/demo/enter/{slug}"


def second_base_url(settings: DoorSettings) -> str | None:
    """Return the server's address under another host name, or ``None`` if it has only one.

    A browser keeps cookies by host name: under two names, one browser can be two people.
    """
    first = urlsplit(settings.base_url)
    name = "127.0.0.1" if first.hostname == "localhost" else "localhost"
    second = f"{first.scheme}://{name}:{first.port}" if first.port else f"{first.scheme}://{name}"
    return second if second in settings.own_origins else None


def routes(clock: Clock, tokens: Tokens, settings: DoorSettings, ids: Mapping[str, str]) -> list[Route]:
    """Return the routes; ``ids``: account ids by slug."""
    members = {member.slug: member for member in MEMBERS}

    async def enter(request: Request) -> Response:
        member = members.get(request.path_params["slug"])
        if member is None:
            return problem("not_found", "Nobody in the demo has this name.")
        now_ms = clock.now_ms()
        issued = tokens.issue(ids[member.slug], member.role, now_ms=now_ms)
        max_age_s = issued.expires_at_s - now_ms // 1000
        cookie = cookies.setting(cookies.SESSION, issued.token, max_age_s)
        return RedirectResponse(
            PAGES[member.role], status_code=302, headers={"Set-Cookie": cookie, "Cache-Control": "no-store"}
        )

    return [Route("/demo/enter/{slug}", enter, methods=["GET"])]
