"""``run.py reconcile``, as an operator types it: beside a running server, before the first start, and when something is away."""

import json
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest

from accounts.accounts import NewAccount
from models.settings import Settings
from models.words import Role
from tests.acceptance.clients import SECRET_KEY, Rest, pay, socket
from tests.acceptance.servers import add_accounts, run, running_servers
from tests.acceptance.shop import open_shop


async def test_beside_a_running_server_it_serves_what_was_paid_and_the_server_tells_of_it(tmp_path: Path) -> None:
    with running_servers(tmp_path) as [server]:
        await server.ready()
        database_url = Settings(_env_file=None, data_dir=tmp_path).resolved_database_url
        [driver] = await add_accounts(database_url, NewAccount(Role.CUSTOMER, "driver@example.com", "John Doe"))
        port = server.base_url.rpartition(":")[2]
        async with (
            Rest.of(server.base_url, driver, "customer") as rest,
            socket(server.base_url, "customer", driver) as page,
        ):
            wanted = {"plan": "quick_chat", "routing_type": "broadcast"}
            opened = await rest.ok("POST", "/api/checkout", json=wanted, status=201)
            async with httpx.AsyncClient() as browser:
                await browser.post(f"{opened['url']}/events", data={"action": "mode", "mode": "held"})
            await pay(opened["url"])
            done = await anyio.to_thread.run_sync(partial(run, tmp_path, "reconcile", PORT=port))
            assert done.returncode == 0, done.stderr
            repair, count = map(json.loads, done.stdout.splitlines())
            assert (repair["found"], repair["became"]) == ("paid_session_not_fulfilled", "served")
            assert repair["id"].startswith("cs_test_")
            assert count == {"repaired": 1}
            told = await page.expect("request_update", request__status="broadcasting")
            state = await rest.ok("GET", f"/api/checkout/{opened['checkout_id']}")
            assert (state["status"], state["request_id"]) == ("paid", told["request"]["id"])


async def test_before_the_first_start_it_needs_no_server_but_stripe(redis_url: str, tmp_path: Path) -> None:
    database_url = f"sqlite:///{tmp_path / 'data' / 'pitlane.sqlite3'}"
    async with open_shop(database_url, redis_url, tmp_path) as shop:
        settings = shop.settings | {"REDIS_URL": "", "SECRET_KEY": SECRET_KEY}
        done = await anyio.to_thread.run_sync(partial(run, tmp_path / "data", "reconcile", **settings))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"repaired": 0}), done.stderr


NOBODY = "127.0.0.1:9"
OWN_STRIPE = {"STRIPE_SECRET_KEY": "sk_test_x", "STRIPE_WEBHOOK_SECRET": "whsec_x"}


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "python3 run.py serve"),
        ({"DATABASE_URL": f"postgresql://app@{NOBODY}/x"}, "database"),
        ({**OWN_STRIPE, "STRIPE_API_BASE": f"http://{NOBODY}"}, "Stripe"),
    ],
    ids=["no server with the stand-in", "no SQL", "no Stripe"],
)
def test_what_is_away_is_said_in_one_sentence_and_exits_1(tmp_path: Path, settings: dict[str, str], word: str) -> None:
    done = run(tmp_path / "data", "reconcile", **settings)
    assert (done.returncode, done.stdout) == (1, "")
    sentences = [line for line in done.stderr.splitlines() if line.startswith("run.py: ")]
    assert len(sentences) == 1, done.stderr
    assert word in sentences[0] == done.stderr.splitlines()[-1]
