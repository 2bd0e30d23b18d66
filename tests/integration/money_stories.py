"""Stories about one payment, played on two nodes over a real Stripe stand-in: what happens, in which order, and how often.

A story is a list of words (``WORDS``). Stripe's own webhooks are held, and the story hands its events over: one, all, twice, at
once, in reverse. So every order that the network could make can be written down, and made up by hypothesis.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from embedded.stripe_standin.objects import new_id as stripe_id
from models import tables
from models.outcomes import Refused
from models.settings import DispatchSettings
from models.wire import RequestView
from tests.integration.money import checkout, signed, state
from tests.parts import WEBHOOK_SECRET, Node, World, eventually, running_node, running_world, side_by_side

NEW_SECRET = "whsec_new"
TOO_OLD_S = 3600
PATIENCE_S = 30.0
ALL_DAY = DispatchSettings(priority_window_ms=86_400_000, broadcast_window_ms=86_400_000)
"""Windows that do not end while other stories are told."""


@dataclass
class Teller:
    """Who plays stories; each is about a customer and a checkout of its own."""

    world: World
    nodes: tuple[Node, Node]

    async def play(self, words: Sequence[str]) -> str:
        """Play the story, let everything come to rest, and return its end: ``served``, ``refunded`` or ``nothing``.

        Fails if there is more than one end, or if Stripe says otherwise.
        """
        story = await Story.begin(self)
        for word in words:
            await WORDS[word](story)
        # Whatever was lost on the way is found, and whatever comes again changes nothing.
        await self.repair()
        await story.everything_side_by_side()
        await story.is_at_rest()
        return await story.end()

    async def repair(self) -> None:
        async for _ in self.nodes[0].reconciler.repairs():
            pass


@dataclass
class Story:
    """One customer's payment."""

    teller: Teller
    customer_id: str
    checkout_id: str
    session_id: str
    url: str
    refusals: list[str] = field(default_factory=list)

    @classmethod
    async def begin(cls, teller: Teller) -> "Story":
        world, (a, _) = teller.world, teller.nodes
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        await world.hold_webhooks(opened.url)
        row = await world.row(tables.Checkout, opened.checkout_id)
        assert row.stripe_session_id is not None
        return cls(teller, customer_id, row.id, row.stripe_session_id, opened.url)

    # --- at Stripe ----------------------------------------------------------------------------------------------------

    async def press(self, ending: str) -> None:
        """Press a button of the page; on a page that is closed it does nothing."""
        answer = await self.teller.world.browser.post(self.url, data={"ending": ending})
        assert answer.status_code in (200, 303, 409), answer.text

    async def settle(self, outcome: str) -> None:
        await self.teller.world.browser.post(f"{self.url}/settle", data={"outcome": outcome})

    async def discount(self) -> None:
        """Let the page ask for nothing, as a coupon in Stripe's dashboard would."""
        price = {"currency": "usd", "unit_amount": 0, "product_data": {"name": "With a full discount"}}
        discounted = await self.teller.nodes[0].stripe_api.create_session(
            {
                "mode": "payment",
                "line_items": [{"quantity": 1, "price_data": price}],
                "client_reference_id": self.checkout_id,
                "success_url": "http://127.0.0.1:9/",
                "cancel_url": "http://127.0.0.1:9/back",
            },
            idempotency_key=f"discounted-{self.checkout_id}",
        )
        assert discounted.url is not None
        await self.alter(stripe_session_id=discounted.id, url=discounted.url)
        self.session_id, self.url = discounted.id, discounted.url
        await self.teller.world.hold_webhooks(self.url)

    async def events(self) -> list[dict[str, Any]]:
        """Return what Stripe would have told us so far, oldest first."""
        listed = (await self.teller.world.at_stripe("events", limit="30"))["data"]
        about = {event["id"]: event["data"]["object"] for event in listed}

        def is_ours(event: dict[str, Any]) -> bool:
            subject = about[event["id"]]
            return subject["id"] == self.session_id or subject["metadata"].get("checkout_id") == self.checkout_id

        return [event for event in reversed(listed) if is_ours(event)]

    # --- what reaches us ----------------------------------------------------------------------------------------------

    async def tell(self, event: dict[str, Any], **signature: Any) -> None:
        refused = await self.teller.nodes[len(self.refusals) % 2].payments.receive_webhook(*signed(event, **signature))
        if refused is not None:
            self.refusals.append(refused.code)

    async def tell_of(self, kind: str, **changes: Any) -> None:
        """Hand over an event that Stripe has not made, as a twin, a forgery or a contradiction would be."""
        subject = {"id": self.session_id, "object": "checkout.session"}
        event = {
            "id": stripe_id("evt_1"),
            "object": "event",
            "type": kind,
            "livemode": False,
            "data": {"object": subject},
        }
        await self.tell({**event, **changes})

    async def tell_each(self, *, is_reversed: bool = False) -> None:
        events = await self.events()
        for event in events[::-1] if is_reversed else events:
            await self.tell(event)
            await self.is_at_rest()

    async def everything_side_by_side(self) -> None:
        deliveries = [
            partial(node.payments.receive_webhook, *signed(event))
            for event in await self.events()
            for node in self.teller.nodes
        ]
        assert await side_by_side(*deliveries) == [None] * len(deliveries)

    async def forge(self) -> None:
        await self.refused(self.tell_signed("whsec_forged"))

    async def tell_too_late(self) -> None:
        await self.refused(self.tell_signed(age_s=TOO_OLD_S))

    async def tell_signed(self, secret: str = WEBHOOK_SECRET, **signature: Any) -> None:
        event = {"id": stripe_id("evt_1"), "object": "event", "type": "checkout.session.completed"}
        subject = {"id": self.session_id, "object": "checkout.session"}
        await self.tell({**event, "data": {"object": subject}}, secret=secret, **signature)

    async def refused(self, telling: Awaitable[None]) -> None:
        before = len(self.refusals)
        await telling
        assert self.refusals[before:] == ["bad_signature"]

    # --- what people do -----------------------------------------------------------------------------------------------

    async def come_back(self) -> None:
        """Open the landing page, on both nodes side by side."""
        await side_by_side(*(partial(state, node, self.customer_id, self.checkout_id) for node in self.teller.nodes))

    async def cancel(self) -> None:
        """Cancel the request, if there is one by now."""
        await self.is_at_rest()
        row = await self.teller.world.row(tables.Checkout, self.checkout_id)
        if row.request_id is not None:
            answer = await self.teller.nodes[1].dispatch.cancel(self.customer_id, row.request_id)
            assert isinstance(answer, RequestView | Refused)

    async def alter(self, **values: Any) -> None:
        await self.teller.world.update(tables.Checkout, self.checkout_id, **values)

    async def give_up(self) -> None:
        """Believe, wrongly or too early, that the page has expired unpaid."""
        if (await self.teller.world.row(tables.Checkout, self.checkout_id)).status == "open":
            await self.alter(status="expired")

    # --- the end ------------------------------------------------------------------------------------------------------

    async def is_at_rest(self) -> None:
        """Wait until every stored event is worked on, and every refund has ended."""

        async def has_come_to_rest() -> bool:
            events = await self.teller.world.rows(tables.StripeEvent, object_id=self.session_id)
            refunds = await self.teller.world.rows(tables.Refund, checkout_id=self.checkout_id)
            return all(event.processed_at_ms for event in events) and all(one.settled_at_ms for one in refunds)

        await eventually(has_come_to_rest, "all events worked on, all refunds at their end", within_s=PATIENCE_S)

    async def end(self) -> str:
        world = self.teller.world
        requests = await world.rows(tables.SessionRequest, customer_id=self.customer_id)
        refunds = await world.rows(tables.Refund, checkout_id=self.checkout_id)
        row = await world.row(tables.Checkout, self.checkout_id)
        session = await world.at_stripe(
            f"checkout/sessions/{self.session_id}", **{"expand[]": "payment_intent.latest_charge"}
        )
        charge = (session["payment_intent"] or {}).get("latest_charge") or {"paid": False, "amount_refunded": 0}
        assert len(requests) <= 1 and len(refunds) <= 1, (requests, refunds)
        assert charge["amount_refunded"] == sum(refund.amount_cents for refund in refunds)
        is_open = bool(requests) and requests[0].settled_at_ms is None
        if refunds:
            assert [refund.status for refund in refunds] == ["succeeded"]
            assert not is_open
            assert charge["amount_refunded"] == charge["amount"]
            return "refunded"
        if is_open:
            assert session["payment_status"] in ("paid", "no_payment_required")
            assert (row.status, row.request_id) == ("paid", requests[0].id)
            return "served"
        # A request that cost nothing and was cancelled has nothing to give back.
        assert not requests or session["payment_status"] == "no_payment_required"
        assert not charge["paid"], "paid, and neither served nor refunded"
        assert row.status == "paid" if requests else row.status in ("open", "expired", "failed")
        return "nothing"


WORDS: dict[str, Callable[[Story], Awaitable[None]]] = {
    # at Stripe
    "pays": lambda story: story.press("pay"),
    "pays later": lambda story: story.press("delayed"),
    "the money arrives": lambda story: story.settle("succeed"),
    "the money does not arrive": lambda story: story.settle("fail"),
    "the page expires": lambda story: story.press("expire"),
    "goes back": lambda story: story.press("back"),
    "a coupon makes it free": Story.discount,
    # what reaches us
    "each event": Story.tell_each,
    "each event in reverse": lambda story: story.tell_each(is_reversed=True),
    "everything side by side": Story.everything_side_by_side,
    "a twin": lambda story: story.tell_of("checkout.session.completed"),
    "says it has expired": lambda story: story.tell_of("checkout.session.expired"),
    "says the money did not arrive": lambda story: story.tell_of("checkout.session.async_payment_failed"),
    "a forged event": Story.forge,
    "an event signed long ago": Story.tell_too_late,
    "an event signed with the new secret": lambda story: story.tell_signed(NEW_SECRET),
    "an event of the other mode": lambda story: story.tell_of("checkout.session.completed", livemode=True),
    # what people and nodes do
    "comes back": Story.come_back,
    "cancels the request": Story.cancel,
    "we give it up": Story.give_up,
    "we asked for more": lambda story: story.alter(price_cents=2999),
    "we asked for euros": lambda story: story.alter(currency="eur"),
    "we look for what was lost": lambda story: story.teller.repair(),
}


@asynccontextmanager
async def teller(database_url: str, redis_url: str, folder: Path) -> AsyncIterator[Teller]:
    """Run two nodes on one database; both take webhooks signed with either of two secrets."""
    async with running_world(database_url, redis_url, folder) as world:
        rotating = replace(world.stripe, webhook_secrets=(NEW_SECRET, WEBHOOK_SECRET))
        async with (
            running_node(world, ALL_DAY, stripe=rotating) as a,
            running_node(world, ALL_DAY, stripe=rotating) as b,
        ):
            yield Teller(world, (a, b))
