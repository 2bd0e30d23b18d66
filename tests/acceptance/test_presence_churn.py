"""Presence tells the truth under churn: hundreds of mechanics who come, go, break off and freeze on two real servers.

``CHURN_SEED=…`` replays a plan; the seed of each run is printed.
"""

import os
import random
from pathlib import Path

import anyio
import pytest

from models.settings import PresenceSettings
from tests.acceptance.churn import Ending, Stay, is_within, plan, promises
from tests.acceptance.crowd import Crowd, gathering, two_nodes

pytestmark = pytest.mark.timeout(300)
"""Every single wait is bounded, and on a busy machine some of them are long."""

MECHANICS = 300
LASTS_S = 10.0
PATIENCE_S = 30.0
SETTINGS = PresenceSettings(heartbeat_interval_ms=500, timeout_ms=2_500, grace_ms=1_000)


def test_the_same_seed_makes_the_same_churn() -> None:
    one, other = (plan(7, mechanics=20, nodes=2, lasts_s=5) for _ in range(2))
    assert one == other
    assert one != plan(8, mechanics=20, nodes=2, lasts_s=5)


def test_a_plan_has_everything_in_it() -> None:
    devices = [spells for devices in plan(1, mechanics=MECHANICS, nodes=2, lasts_s=LASTS_S) for spells in devices]
    spells = [spell for spells in devices for spell in spells]
    assert {spell.ending for spell in spells} == {None, *Ending}
    assert {spell.node for spell in spells} == {0, 1}
    assert any(spell.gap_s is not None and spell.gap_s * 1000 > SETTINGS.timeout_ms for spell in spells)
    assert all(spell.gap_s is not None for spells in devices for spell in spells[:-1])


def test_a_reconnect_within_the_grace_joins_two_promises_and_a_longer_gap_does_not() -> None:
    first, soon, late = Stay(0, 5_000, 1_000), Stay(5_500, 9_000, 1_000), Stay(12_000)
    assert promises([late, soon, first]) == [(300, 9_700), (12_300, float("inf"))]
    assert promises([Stay(0, 100, 0)]) == [], "too short to be sure of"


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
async def test_after_and_during_any_churn_every_status_on_both_nodes_is_the_truth(
    database_url: str, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CHURN_SEED") or random.SystemRandom().randrange(10**6))
    print(f"CHURN_SEED={seed}")
    with two_nodes(database_url, tmp_path, SETTINGS) as (servers, redis):
        dice = random.Random(seed)
        async with gathering(servers, database_url, SETTINGS, mechanics=MECHANICS, dice=dice) as crowd:
            await crowd.watch()
            await crowd.until_true(PATIENCE_S)
            devices_of = plan(seed, mechanics=MECHANICS, nodes=len(servers), lasts_s=LASTS_S)
            async with anyio.create_task_group() as looking:
                looking.start_soon(crowd.stalls.look, redis.url)
                async with anyio.create_task_group() as devices:
                    for mechanic, theirs in zip(crowd.mechanics, devices_of, strict=True):
                        for spells in theirs:
                            devices.start_soon(crowd.live, mechanic, spells)
                quiet_after_s = await crowd.until_true(PATIENCE_S)
                looking.cancel_scope.cancel()
            print(f"{dict(crowd.counts)}; {len(crowd.here)} here in the end, seen by all after {quiet_after_s:.1f} s")
            crowd.assert_versions_only_grew()
            assert_nobody_flickered(crowd)


def assert_nobody_flickered(crowd: Crowd) -> None:
    """Nobody was shown offline at a time for which they were promised to be online."""
    told = doubtful = 0
    flickers = []
    for mechanic, instants_ms in crowd.offline_told().items():
        promised = crowd.promises_to(mechanic)
        for at_ms in instants_ms:
            told += 1
            if is_within(at_ms, promised):
                if crowd.stalls.overlaps(at_ms - crowd.settings.timeout_ms, at_ms):
                    doubtful += 1
                else:
                    flickers.append((mechanic, at_ms, promised))
    print(f"{told} times offline; {doubtful} of them not judged, {len(crowd.stalls.spans)} stalls of the machine")
    assert not flickers, flickers[:3]
