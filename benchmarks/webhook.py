"""Stripe's events, many in a second: how long Stripe waits for the answer, and whether the work afterwards is in the way."""

import hashlib
import hmac
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import stripe

from benchmarks.contenders import Ground, Node, Pitlane, ground, listening, nodes
from benchmarks.cores import Cores
from benchmarks.http_load import Answers, call_all, post
from benchmarks.meters import Usage, percentile
from benchmarks.options import Options
from benchmarks.report import Report, Table, progress
from benchmarks.seeds import Sqlite, Store, prepared, stores
from infra.clock import wall_clock_ms
from models.ids import new_id
from models.settings import Settings
from tests.acceptance.clients import SECRET_KEY, Rest

PER_S: Final = 200
CHECKOUTS: Final = 40
WARM_UP: Final = 50
NO_WORK: Final = "payment_intent.created"
"""Of a kind that nothing follows from: stored, and done."""
WORK: Final = "checkout.session.completed"
"""Each makes the server ask Stripe for the Session, as it is not the event but the Session that decides."""


STRIPE: Final = Settings(secret_key=SECRET_KEY).stripe()
"""The keys of the stand-in that a server with this secret key runs."""


@dataclass(frozen=True)
class Run:
    """One stretch of events."""

    store: str
    kind: str
    answers: Answers
    server_share: float


async def measure(options: Options, cores: Cores, folder: Path) -> Report:
    """Send both kinds of events to a server on each kind of database; return the table."""
    lasts_s = options.pick(options.duration_s, 20.0, 1.0)
    cores.free(0)
    runs: list[Run] = []
    versions: dict[str, str] = {}
    with stores(folder, options.database) as (available, missing):
        for store in available:
            template, people = prepared(folder / f"{store.name}-import", store, mechanics=1, customers=CHECKOUTS)
            with ground(folder / store.name, cores, database_url=store.fresh(template)) as on:
                versions |= {"Redis": on.redis.version(), **store.versions()}
                runs += await _runs(store, on, people.customers, lasts_s)
    return Report("webhook", [_table(runs, lasts_s, missing)], versions)


async def _runs(store: Store, on: Ground, customers: Sequence[str], lasts_s: float) -> list[Run]:
    with ExitStack() as stack:
        # Stripe is somebody else's machine; here it is a server of its own, whose work is not counted as ours.
        stripe_on = replace(on, folder=on.folder / "stripe", database_url=Sqlite(on.folder / "stripe").fresh())
        stripe_on.settings = {"REDIS_PREFIX": "stripe"}
        [at_stripe] = stack.enter_context(nodes(Pitlane(), stripe_on, pinned=False))
        await listening([at_stripe])
        on.settings = {
            "STRIPE_SECRET_KEY": STRIPE.secret_key,
            "STRIPE_WEBHOOK_SECRET": STRIPE.webhook_secrets[0],
            "STRIPE_API_BASE": f"http://127.0.0.1:{at_stripe.port}/stripe-standin",
        }
        [node] = stack.enter_context(nodes(Pitlane(), on, pinned=False))
        await listening([node])
        sessions = await _checkouts(node, customers)
        runs = []
        for kind in (NO_WORK, WORK):
            progress(f"{store.name}: {PER_S * lasts_s:.0f} events {kind}")
            await call_all(node.port, [_event(kind, sessions[0]) for _ in range(WARM_UP)], per_s=PER_S)
            events = [_event(kind, sessions[number % len(sessions)]) for number in range(round(PER_S * lasts_s))]
            before = Usage.of(node.pid)
            answers = await call_all(node.port, events, per_s=PER_S)
            runs.append(Run(store.name, kind, answers, (Usage.of(node.pid) - before).share))
        return runs


async def _checkouts(node: Node, customers: Sequence[str]) -> list[str]:
    """Open a checkout for each that nobody pays; return their Sessions' ids."""
    sessions = []
    for customer_id in customers:
        async with Rest.of(f"http://127.0.0.1:{node.port}", customer_id, "customer") as rest:
            body = {"plan": "quick_chat", "routing_type": "broadcast"}
            answer = await rest.ok("POST", "/api/checkout", json=body, status=201)
            sessions.append(urlsplit(answer["url"]).path.rsplit("/", 1)[-1])
    return sessions


def _event(kind: str, session_id: str) -> bytes:
    """Return a whole signed call (docs.stripe.com/webhooks/signature)."""
    at_s = wall_clock_ms() // 1000
    body = {
        "id": f"evt_{new_id()}",
        "object": "event",
        "api_version": stripe.api_version,
        "created": at_s,
        "type": kind,
        "livemode": False,
        "data": {"object": {"id": session_id, "object": "checkout.session"}},
    }
    payload = json.dumps(body).encode()
    secret = STRIPE.webhook_secrets[0].encode()
    signature = hmac.new(secret, f"{at_s}.".encode() + payload, hashlib.sha256).hexdigest()
    return post("/api/stripe/webhook", payload, Stripe_Signature=f"t={at_s},v1={signature}")


def _table(runs: list[Run], lasts_s: float, missing: str) -> Table:
    table = Table(
        f"POST /api/stripe/webhook: {PER_S} signed events a second for {lasts_s:g} s",
        ["", "p50, ms", "p99, ms", "slowest, ms", "answered 200, %", "server, % of a core"],
    )
    for run in runs:
        after_ms = run.answers.after_ms
        table.add(
            f"{run.store}, {run.kind}",
            percentile(after_ms, 0.5),
            percentile(after_ms, 0.99),
            max(after_ms),
            run.answers.statuses.get(200, 0) / len(after_ms) * 100,
            run.server_share * 100,
        )
    table.notes.append(
        f"`{NO_WORK}` is stored and nothing follows. `{WORK}` makes the server ask Stripe for the Session after each "
        "answer (here a stand-in in a process of its own). Times count from when a call was due."
    )
    table.notes.append("One server; it, Redis, the stand-in, the database and the load share all cores.")
    if missing:
        table.notes.append(missing)
    return table
