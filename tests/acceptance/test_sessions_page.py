"""The door of docs/sessions.md, run as it stands, and the tokens on both of its sides, read by a library that made neither."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from infra.clock import wall_clock_ms
from models import tables
from tests.acceptance.clients import ON_LOOPBACK, PATIENCE_S
from tests.acceptance.servers import ROOT, Server, running_servers
from tests.acceptance.town import Town, new_town
from tests.parts import eventually
from tests.services import free_port

PAGE = (ROOT / "docs" / "sessions.md").read_text()
JOIN_SECRET = "what the server and its rooms know and nobody else"
SETTINGS = {
    "PITLANE_JOIN_SECRET": JOIN_SECRET,
    "JITSI_DOMAIN": "meet.example",
    "JITSI_APP_ID": "garage",
    "JITSI_APP_SECRET": "what Prosody and the door know and nobody else",
    "LIVEKIT_URL": "wss://live.example",
    "LIVEKIT_API_KEY": "APIgarage",
    "LIVEKIT_API_SECRET": "what LiveKit and the door know and nobody else",
    "LIVEKIT_PAGE": "https://rooms.example/custom",
}


# --- what is running --------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """A server whose sessions take place behind the page's doors, one for each system."""

    server: Server
    town: Town
    doors: dict[str, str]
    """Their addresses."""


@contextmanager
def door_to(system: str, folder: Path) -> Iterator[str]:
    """Run the page's example until the end of the block; yields its address."""
    [example] = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    port = free_port()
    script, log_path = folder / f"door-{system}.py", folder / f"door-{system}.log"
    script.write_text(example)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", script],
            env={**os.environ, **SETTINGS, "DOOR_TO": system, "DOOR_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, log_path.read_text()
        assert "token" not in log_path.read_text(), "the address is nothing for a log"
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    with door_to("jitsi", folder) as jitsi, door_to("livekit", folder) as livekit:
        settings = {"JOIN_URL": f"{jitsi}/{{request_id}}?token={{token}}", "JOIN_SECRET": JOIN_SECRET}
        with running_servers(folder, **settings) as [server]:
            await server.ready()
            async with new_town(f"sqlite:///{folder}/pitlane.sqlite3") as town:
                yield Stage(server, town, {"jitsi": jitsi, "livekit": livekit})


async def knock(url: str) -> httpx.Response:
    """Open the address as a browser does, without following where it leads; waits until the door is there."""
    async with httpx.AsyncClient(timeout=PATIENCE_S, **ON_LOOPBACK) as browser:
        answers: list[httpx.Response] = []

        async def answered() -> bool:
            try:
                answers.append(await browser.get(url))
            except httpx.ConnectError:
                return False
            return True

        await eventually(answered, "the door answers")
        return answers[0]


# --- tokens, by a library of others -----------------------------------------------------------------------------------


def read(token: str, secret: str) -> dict[str, Any]:
    """Return the claims of an HS256 token that is signed by ``secret`` and good now."""
    claims = jwt.decode(token, OctKey.import_key(secret), algorithms=["HS256"]).claims
    jwt.JWTClaimsRegistry(exp={"essential": True}).validate(claims)
    return claims


def signed(claims: dict[str, Any], *, secret: str = JOIN_SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode({"alg": algorithm}, claims, OctKey.import_key(secret), algorithms=[algorithm])


def token_in(url: str, parameter: str = "token") -> str:
    [token] = parse_qs(urlsplit(url).query)[parameter]
    return token


# --- the claims -------------------------------------------------------------------------------------------------------


async def test_a_library_of_others_reads_who_comes_and_only_the_two_parties_have_a_link_while_there_is_a_session(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as here:
        town, server = here.town, here.server
        request_id = await town.paid(server, favorite=town.john)
        assert (await town.request(server, request_id))["join_url"] is None, "early"
        async with town.as_mechanic(server, town.john) as john, town.as_mechanic(server, town.mike) as mike:
            [offer] = (await john.ok("GET", "/api/offers"))["offers"]
            taken = (await john.ok("POST", f"/api/offers/{offer['offer_id']}/accept"))["request"]
            theirs = await town.request(server, request_id)
            people = {"mechanic": (town.john, "John Smith", taken), "customer": (town.driver, "John Doe", theirs)}
            [row] = await town.rows(tables.SessionRequest, id=request_id)
            assert row.limit_expires_at_ms is not None
            for role, (account_id, name, request) in people.items():
                claims = read(token_in(request["join_url"]), JOIN_SECRET)
                exp = claims.pop("exp")
                assert claims == {
                    "sub": account_id,
                    "name": name,
                    "role": role,
                    "request_id": request_id,
                    "plan": "quick_chat",
                    "session_type": "text",
                }
                assert exp > row.limit_expires_at_ms // 1000, "long enough for what starts at the last moment"
                assert all(f"`{claim}`" in PAGE for claim in (*claims, "exp"))
            # Nobody else even sees the request, let alone where it takes place.
            assert await mike.problem("GET", f"/api/requests/{request_id}") == (404, "not_found")

            begun = (await john.ok("POST", f"/api/requests/{request_id}/start"))["request"]
            [row] = await town.rows(tables.SessionRequest, id=request_id)
            assert row.limit_expires_at_ms is not None
            assert read(token_in(begun["join_url"]), JOIN_SECRET)["exp"] == row.limit_expires_at_ms // 1000
            ended = (await john.ok("POST", f"/api/requests/{request_id}/complete"))["request"]
            assert ended["join_url"] is None, "late"
            assert (await town.request(server, request_id))["join_url"] is None, "late"


# --- the door ---------------------------------------------------------------------------------------------------------


async def test_the_door_sends_both_on_to_the_same_room_with_a_token_that_the_other_system_takes(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        town, server = here.town, here.server
        request_id = await town.paid(server, favorite=town.john)
        async with town.as_mechanic(server, town.john) as john:
            [offer] = (await john.ok("GET", "/api/offers"))["offers"]
            taken = (await john.ok("POST", f"/api/offers/{offer['offer_id']}/accept"))["request"]
        theirs = await town.request(server, request_id)
        for account_id, name, link in (
            (town.john, "John Smith", taken["join_url"]),
            (town.driver, "John Doe", theirs["join_url"]),
        ):
            ours = read(token_in(link), JOIN_SECRET)

            # Jitsi: lib-jitsi-meet/doc/tokens.md, with a shared secret.
            answer = await knock(link)
            assert (answer.status_code, answer.headers["referrer-policy"]) == (303, "no-referrer")
            there = urlsplit(answer.headers["location"])
            room = request_id.lower()
            assert (there.scheme, there.netloc, there.path) == ("https", "meet.example", f"/{room}")
            assert read(token_in(answer.headers["location"], "jwt"), SETTINGS["JITSI_APP_SECRET"]) == {
                "aud": "garage",
                "iss": "garage",
                "sub": "meet.example",
                "room": room,
                "exp": ours["exp"],
                "context": {"user": {"id": account_id, "name": name}},
            }

            # LiveKit: docs.livekit.io, "Token structure".
            answer = await knock(link.replace(here.doors["jitsi"], here.doors["livekit"]))
            address = answer.headers["location"]
            assert address.startswith("https://rooms.example/custom?")
            assert token_in(address, "liveKitUrl") == "wss://live.example"
            claims = read(token_in(address), SETTINGS["LIVEKIT_API_SECRET"])
            assert claims.pop("nbf") <= now_s()
            assert claims == {
                "iss": "APIgarage",
                "sub": account_id,
                "name": name,
                "exp": ours["exp"],
                "video": {"room": request_id, "roomJoin": True},
            }


def now_s() -> int:
    return wall_clock_ms() // 1000


def bad_tokens() -> dict[str, str]:
    """Tokens that must open no door to the room ``01ROOM``, by what is wrong with them."""
    good = {"sub": "01JOHN", "name": "John Smith", "request_id": "01ROOM", "exp": now_s() + 600}
    head, body, _ = signed(good).split(".")
    # {"alg":"none"}, which RFC 8725 §3.1 warns of: whoever believes the header asks for no signature.
    unsigned = "eyJhbGciOiJub25lIn0"
    return {
        "none at all": "",
        "no token": "nonsense",
        "not signed": f"{head}.{body}.",
        "says itself that it needs no signature": f"{unsigned}.{body}.",
        "signed by somebody else": signed(good, secret="what somebody else has made up to get inside"),
        "another algorithm": signed(good, algorithm="HS512"),
        "of another room": signed({**good, "request_id": "01OTHER"}),
        "over": signed({**good, "exp": now_s() - 1}),
        "without an end": signed({name: claim for name, claim in good.items() if name != "exp"}),
        "of no room": signed({name: claim for name, claim in good.items() if name != "request_id"}),
    }


@pytest.mark.parametrize("system", ["jitsi", "livekit"])
async def test_the_door_opens_to_nobody_else(tmp_path: Path, system: str) -> None:
    with door_to(system, tmp_path) as door:
        good = {"sub": "01JOHN", "name": "John Smith", "request_id": "01ROOM", "exp": now_s() + 600}
        assert (await knock(f"{door}/01ROOM?token={signed(good)}")).status_code == 303
        for wrong, token in bad_tokens().items():
            answer = await knock(f"{door}/01ROOM?token={token}")
            assert (answer.status_code, answer.headers.get("location")) == (403, None), wrong


def test_the_page_names_every_setting_that_its_door_reads() -> None:
    example, rest = PAGE.split("```python\n")[1].split("\n```\n", 1)
    read_by_it = set(re.findall(r'SETTINGS\[["\'](\w+)["\']\]', example))
    assert read_by_it >= SETTINGS.keys()
    assert [name for name in sorted(read_by_it) if f"`{name}`" not in rest] == []
