"""The JavaScript client behind a network that delays, cuts, holds and repeats, on a real server: nothing is lost or doubled.

How long and how to try the same again is said in ``bad_network.py``.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from subprocess import PIPE
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.streams.text import TextReceiveStream

from models import tables
from tests.acceptance.bad_network import (
    LASTS_S,
    PATIENCE_S,
    SETTINGS,
    SPELLS,
    book_for,
    is_all_answered,
    outage,
    seed_of_this_run,
)
from tests.acceptance.clients import token_for
from tests.acceptance.servers import Server, running_servers
from tests.acceptance.town import Town, new_town
from tests.deno_program import AS_IT_STANDS, deno, deno_environment
from tests.lossy_proxy import CALM, STORM, LossyProxy, lossy_proxy
from tests.parts import eventually

pytestmark = pytest.mark.timeout(2 * LASTS_S + 300)

SCRIPT = Path(__file__).with_name("lossy_clients.js")
HAIL = replace(STORM, after_s=(0.1, 3.0), repeats=0.3)
"""A storm for few connections that live long: most of them meet their fate within a spell."""


@dataclass
class Apps:
    """What the apps were told, line by line."""

    process: anyio.abc.Process
    lines: list[dict[str, Any]] = field(default_factory=list)

    def told(self, what: str, **members: Any) -> Iterator[dict[str, Any]]:
        """Return the lines of this kind with these members, in order."""
        return (
            line
            for line in self.lines
            if line["what"] == what and all(line.get(name) == value for name, value in members.items())
        )

    def state_of(self, who: str) -> str | None:
        """Return what this client last said of its connection."""
        states = [line["state"] for line in self.told("state", who=who)]
        return states[-1] if states else None

    def offered(self, who: str) -> list[str]:
        """Return the offers that were news to this mechanic, as often as they were."""
        return [line["offer_id"] for line in self.told("offer", who=who, is_new=True)]

    async def end(self) -> None:
        """Let them say what they know at the end, and wait until they have."""
        assert self.process.stdin is not None
        await self.process.stdin.send(b"\n")
        with anyio.fail_after(PATIENCE_S):
            await self.process.wait()


@asynccontextmanager
async def running_apps(cache: Path, **what: Any) -> AsyncIterator[Apps]:
    """Run the script of the apps inside the block."""
    async with (
        await anyio.open_process(
            deno("run", *AS_IT_STANDS, SCRIPT, json.dumps(what)),
            env=deno_environment(cache),
            stdin=PIPE,
            stderr=None,
        ) as process,
        anyio.create_task_group() as tasks,
    ):
        apps = Apps(process)

        async def listen() -> None:
            assert process.stdout is not None
            rest = ""
            async for text in TextReceiveStream(process.stdout):
                *lines, rest = (rest + text).split("\n")
                apps.lines += map(json.loads, lines)

        tasks.start_soon(listen)
        try:
            yield apps
        finally:
            if process.returncode is None:
                process.kill()
        tasks.cancel_scope.cancel()


async def test_behind_a_bad_network_no_offer_is_missed_or_shown_twice_and_no_accept_lost_or_doubled(
    tmp_path: Path,
) -> None:
    seed = seed_of_this_run()
    dice = Random(seed)
    with running_servers(tmp_path, **SETTINGS) as [server]:
        await server.ready()
        async with (
            new_town(f"sqlite:///{tmp_path}/pitlane.sqlite3") as town,
            lossy_proxy(server.base_url, seed=seed, weather=HAIL) as proxy,
            running_apps(
                tmp_path / "deno",
                seed=seed,
                lossy=proxy.base_url,
                direct=server.base_url,
                customer={"id": town.driver, "token": token_for(town.driver, "customer")},
                mechanics=[{"id": one, "token": token_for(one, "mechanic")} for one in (town.john, town.mike)],
            ) as apps,
        ):
            for _ in range(SPELLS):
                proxy.weather = HAIL
                await book_for(town, server, dice)
                await outage(proxy)
                await blocked(town, server, proxy, apps)
            proxy.weather = CALM
            proxy.cut_all()
            await eventually(lambda: is_all_answered(town), "everything is answered", within_s=PATIENCE_S)
            await eventually(
                lambda: len(list(apps.told("answers"))) == len(list(apps.told("outcome"))),
                "an outcome for each answer",
                within_s=PATIENCE_S,
            )
            await apps.end()
            print("the network:", dict(proxy.met))
            print("the apps:", dict(Counter(line["what"] for line in apps.lines)))
            print("outcomes:", dict(Counter((one["answer"], one["outcome"]) for one in apps.told("outcome"))))
            await is_right(town, apps)


# --- what happens -----------------------------------------------------------------------------------------------------


async def blocked(town: Town, server: Server, proxy: LossyProxy, apps: Apps) -> None:
    """REST gets through and sockets do not: a favourite hears of an offer all the same."""
    proxy.weather = CALM
    proxy.blocks_sockets = True
    proxy.cut_all()
    await eventually(lambda: apps.state_of(town.john) == "polling", "John polls", within_s=PATIENCE_S)
    request_id = await town.paid(server, favorite=town.john)
    await eventually(
        lambda: any(apps.told("offer", who=town.john, request_id=request_id)), "John hears of it", within_s=PATIENCE_S
    )
    proxy.blocks_sockets = False


# --- what must be true ------------------------------------------------------------------------------------------------


async def is_right(town: Town, apps: Apps) -> None:
    """Check what the apps were told by what SQL says."""
    requests = {one.id: one for one in await town.rows(tables.SessionRequest)}
    request_of = {one.id: one.request_id for one in await town.rows(tables.Offer)}
    for mechanic_id in (town.john, town.mike):
        offered = Counter(apps.offered(mechanic_id))
        assert [offer_id for offer_id, times in offered.items() if times > 1] == [], "shown twice"
        for offer in await town.rows(tables.Offer, mechanic_id=mechanic_id):
            assert offered[offer.id] == 1, "an offer for them alone was missed"
        is_told_of = {line["request_id"] for line in apps.told("outcome", who=mechanic_id, outcome="accepted")}
        is_told_of |= {line["request_id"] for line in apps.told("request", who=mechanic_id)}
        theirs = {one.id for one in requests.values() if one.assigned_mechanic_id == mechanic_id}
        assert theirs <= is_told_of, "a session that its mechanic does not know of"
        for line in apps.told("outcome", who=mechanic_id):
            request_id = request_of[line["offer_id"]]
            if line["outcome"] == "accepted":
                assert request_id == line["request_id"]
                assert request_id in theirs, "an accept that has won nothing"
            elif line["outcome"] == "refused" and line["code"] == "offer_gone":
                assert request_id not in theirs, "told that it is gone, and has it"
            elif line["outcome"] == "declined":
                assert request_id not in theirs
    for request_id in requests:
        assert (await town.story(request_id)).count("accepted") <= 1, "accepted twice"
    for kind, name in (("request", "request_id"), ("status", "mechanic_id")):
        newest: dict[tuple[str, str], int] = {}
        for line in apps.told(kind):
            key = (line["who"], line[name])
            assert newest.get(key, -1) <= line["version"], "an old version after a newer one"
            newest[key] = line["version"]
    assert list(apps.told("signed_out")) == []
    assert list(apps.told("not_served")) == []
    assert any(apps.told("state", state="polling"))
    assert any(apps.told("outcome", outcome="accepted"))
