"""The Python client behind a network that delays, cuts, holds and repeats, on a real server: nothing is lost or doubled.

How long and how to try the same again is said in ``bad_network.py``.
"""

from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from clients.python.pitlane_client import (
    ConnectionChanged,
    ConnectionState,
    CustomerClient,
    MechanicClient,
    OfferGone,
    OfferMade,
    Problem,
    Refused,
    Request,
    RequestChanged,
    StatusChanged,
    Unsettled,
)
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
from tests.lossy_proxy import CALM, STORM, LossyProxy, lossy_proxy
from tests.parts import eventually

pytestmark = pytest.mark.timeout(3 * LASTS_S + 300)


@dataclass
class Mechanic:
    """A mechanic's app: it answers every offer, and serves what it has accepted."""

    client: MechanicClient
    dice: Random
    made: list[str] = field(default_factory=list)
    requests_offered: set[str] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)
    outcomes: list[tuple[str, str, Any]] = field(default_factory=list)
    """Offer, answer, and what came of it."""
    answering: int = 0
    states: list[ConnectionState] = field(default_factory=list)
    told: list[Request] = field(default_factory=list)

    async def run(self) -> None:
        """Use the app until cancelled."""
        async with anyio.create_task_group() as tasks:
            async for event in self.client:
                match event:
                    case OfferMade(offer):
                        self.made.append(offer["offer_id"])
                        self.requests_offered.add(offer["request_id"])
                        assert offer["offer_id"] not in self.shown, "shown while it is on the table"
                        self.shown.add(offer["offer_id"])
                        tasks.start_soon(self._answer, offer["offer_id"])
                    case OfferGone(offer):
                        assert offer["offer_id"] in self.shown, "gone before it was there"
                        self.shown.discard(offer["offer_id"])
                    case ConnectionChanged(state):
                        self.states.append(state)
                    case RequestChanged(request):
                        self.told.append(request)
                        tasks.start_soon(self._serve, request)
                    case _:
                        pass

    async def _answer(self, offer_id: str) -> None:
        self.answering += 1
        await anyio.sleep(self.dice.uniform(0, 0.5))
        self.client.seen(offer_id)
        verb = self.dice.choices(["accept", "decline"], [4, 1])[0]
        while True:
            try:
                outcome = await (self.client.accept if verb == "accept" else self.client.decline)(offer_id)
            except Unsettled:
                continue
            self.outcomes.append((offer_id, verb, outcome))
            if not (isinstance(outcome, Refused) and outcome.code == "already_in_session"):
                break
            # Once they are free; it is open as long as nobody else takes it.
            await anyio.sleep(self.dice.uniform(0.2, 1.0))
            if offer_id not in self.shown:
                break
        self.answering -= 1

    async def _serve(self, request: Request) -> None:
        verb = {"accepted": "start", "in_progress": "complete"}.get(request["status"])
        while verb is not None:
            try:
                await self.client.act(request["id"], verb)
            except Problem:
                await anyio.sleep(0.2)
            else:
                return


async def test_behind_a_bad_network_no_offer_is_missed_or_shown_twice_and_no_accept_lost_or_doubled(
    tmp_path: Path,
) -> None:
    seed = seed_of_this_run()
    dice = Random(seed)
    with running_servers(tmp_path, **SETTINGS) as [server]:
        await server.ready()
        async with (
            new_town(f"sqlite:///{tmp_path}/pitlane.sqlite3") as town,
            lossy_proxy(server.base_url, seed=seed, weather=STORM) as proxy,
            AsyncExitStack() as stack,
        ):
            mechanics = {}
            for one in (town.john, town.mike):
                own = Random(dice.random())
                client = MechanicClient(proxy.base_url, token_for(one, "mechanic"), dice=own, trust_env=False)
                mechanics[one] = Mechanic(await stack.enter_async_context(client), own)
            page = await stack.enter_async_context(
                CustomerClient(proxy.base_url, token_for(town.driver, "customer"), dice=dice, trust_env=False)
            )
            page.watch(mechanics)
            seen: list[Any] = []

            async def look() -> None:
                async for event in page:
                    seen.append(event)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(look)
                for mechanic in mechanics.values():
                    tasks.start_soon(mechanic.run)
                for _ in range(SPELLS):
                    proxy.weather = STORM
                    await book_for(town, server, dice)
                    await outage(proxy)
                    await blocked(town, server, proxy, mechanics[town.john])
                proxy.weather = CALM
                proxy.cut_all()
                await eventually(lambda: is_all_answered(town), "everything is answered", within_s=PATIENCE_S)
                await eventually(
                    lambda: not any(one.answering for one in mechanics.values()),
                    "an outcome for each",
                    within_s=PATIENCE_S,
                )
                await eventually(lambda: knows_all(town, page, seen), "the customer knows all", within_s=PATIENCE_S)
                tasks.cancel_scope.cancel()
            print("the network:", dict(proxy.met))
            for one in mechanics.values():
                print(
                    f"{len(one.made)} offers, states {dict(Counter(one.states))}, outcomes",
                    dict(
                        Counter(
                            (verb, out.code if isinstance(out, Refused) else "done") for _, verb, out in one.outcomes
                        )
                    ),
                )
            await is_right(town, mechanics, seen)


# --- what happens -----------------------------------------------------------------------------------------------------


async def blocked(town: Town, server: Server, proxy: LossyProxy, john: Mechanic) -> None:
    """REST gets through and sockets do not: a favourite hears of an offer all the same."""
    proxy.weather = CALM
    proxy.blocks_sockets = True
    proxy.cut_all()
    await eventually(lambda: john.client.state is ConnectionState.POLLING, "John's app polls", within_s=PATIENCE_S)
    request_id = await town.paid(server, favorite=town.john)
    await eventually(lambda: request_id in john.requests_offered, "John hears of it", within_s=PATIENCE_S)
    proxy.blocks_sockets = False


# --- what must be true ------------------------------------------------------------------------------------------------


def newest(seen: list[Any]) -> dict[str, Request]:
    """Return what was told last of each request; an old version after a newer one fails."""
    found: dict[str, Request] = {}
    for event in seen:
        if isinstance(event, RequestChanged):
            before = found.get(event.request["id"])
            assert before is None or before["version"] < event.request["version"], "an old version after a newer one"
            found[event.request["id"]] = event.request
    return found


async def knows_all(town: Town, page: CustomerClient, seen: list[Any]) -> bool:
    """Whether the page is live and takes nothing for open that is over. Of what began and ended unheard it need not know."""
    settled = {one.id for one in await town.rows(tables.SessionRequest) if one.settled_at_ms is not None}
    taken_for_open = {one for one, known in newest(seen).items() if known["completed_at"] is None}
    return page.state is ConnectionState.LIVE and not settled & taken_for_open


async def is_right(town: Town, mechanics: dict[str, Mechanic], seen: list[Any]) -> None:
    """Check what the apps were told by what SQL says."""
    requests = {one.id: one for one in await town.rows(tables.SessionRequest)}
    request_of = {one.id: one.request_id for one in await town.rows(tables.Offer)}
    for mechanic_id, mechanic in mechanics.items():
        newest([RequestChanged(request) for request in mechanic.told])
        made = Counter(mechanic.made)
        for offer in await town.rows(tables.Offer, mechanic_id=mechanic_id):
            assert made[offer.id] == 1, "an offer for them alone is handed out once, and never missed"
        theirs = {one.id for one in requests.values() if one.assigned_mechanic_id == mechanic_id}
        assert theirs <= {request["id"] for request in mechanic.told}, "a session that its mechanic does not know of"
        for offer_id, verb, outcome in mechanic.outcomes:
            request_id = request_of[offer_id]
            if verb == "accept" and not isinstance(outcome, Refused):
                assert outcome["id"] == request_id
                assert request_id in theirs, "an accept that has won nothing"
            elif verb == "accept" and outcome.code == "offer_gone":
                assert request_id not in theirs, "told that it is gone, and has it"
            elif outcome is None:
                assert request_id not in theirs
        assert ConnectionState.LIVE in mechanic.states
    for request_id in requests:
        assert (await town.story(request_id)).count("accepted") <= 1, "accepted twice"
    versions: dict[str, int] = {}
    for event in seen:
        if isinstance(event, StatusChanged):
            assert versions.get(event.status["mechanic_id"], -1) <= event.status["version"]
            versions[event.status["mechanic_id"]] = event.status["version"]
    assert ConnectionState.POLLING in mechanics[town.john].states
