"""What both clients are tried with on a bad network: spells of bookings behind a proxy, outages, and when all of it is over.

The seed is printed; ``LOSSY_SEED=…`` tries it again, and ``LOSSY_S=300`` lets the bad weather last for five minutes.
"""

import os
import random
from collections import Counter
from random import Random
from typing import Final

import anyio

from models import tables
from tests.acceptance.servers import Server
from tests.acceptance.town import Town
from tests.lossy_proxy import Fate, LossyProxy, Weather

LASTS_S: Final = float(os.environ.get("LOSSY_S", "10"))
SPELL_S: Final = 10.0
"""How long the bad weather lasts before the next outage."""
SPELLS: Final = max(1, round(LASTS_S / SPELL_S))
OUTAGE_S: Final = 5.0
OPEN_MAX: Final = 6
"""Requests that may be open at a time, so that the apps have something to do, and not more than they can."""
PATIENCE_S: Final = 90.0
NOBODY: Final = Weather(weights={Fate.REFUSED: 1.0})
TRIES_MAX: Final = 25
"""Of one client in one outage: the waits double, so it is the first few that are quick."""
SETTINGS: Final = {
    "HEARTBEAT_INTERVAL_S": "1",
    "PRESENCE_TIMEOUT_S": "4",
    "DISCONNECT_GRACE_S": "1",
    # What nobody answers stays open until the end, where it would be seen.
    "PRIORITY_WINDOW_S": "3600",
    "BROADCAST_WINDOW_S": "3600",
}


def seed_of_this_run() -> int:
    """Return the seed that was asked for, or a new one, and print it."""
    seed = int(os.environ.get("LOSSY_SEED", random.randrange(1_000_000)))
    print(f"LOSSY_SEED={seed} LOSSY_S={LASTS_S}")
    return seed


# --- what happens -----------------------------------------------------------------------------------------------------


async def book_for(town: Town, server: Server, dice: Random) -> None:
    """Book with a favourite or with anybody, again and again, for a spell."""
    with anyio.move_on_after(SPELL_S) as spell:
        while True:
            await anyio.sleep(dice.uniform(0.1, 0.8))
            with anyio.CancelScope(shield=True):
                requests = await town.rows(tables.SessionRequest)
                if sum(one.settled_at_ms is None for one in requests) < OPEN_MAX:
                    await town.paid(server, favorite=dice.choice([None, town.john, town.mike]))
    assert spell.cancelled_caught


async def outage(proxy: LossyProxy) -> None:
    """Everybody is refused for a while; they knock less and less often."""
    proxy.weather = NOBODY
    proxy.cut_all()
    before = proxy.met[Fate.REFUSED]
    await anyio.sleep(OUTAGE_S)
    assert proxy.met[Fate.REFUSED] - before <= 3 * TRIES_MAX


# --- what must be true ------------------------------------------------------------------------------------------------


async def is_all_answered(town: Town) -> bool:
    """Whether each request is served, or declined by both."""
    declined = Counter(one.request_id for one in await town.rows(tables.Exclusion))
    requests = await town.rows(tables.SessionRequest)
    return all(one.status == "completed" or declined[one.id] == 2 for one in requests)
