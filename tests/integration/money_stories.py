"""Stories about one payment, played on two nodes over a real Stripe stand-in: what happens, in which order, and how often.

A story is a list of words (``WORDS``). Stripe's own webhooks are held, and the story hands its events over: one, all, twice, at
once, in reverse. So every order that the network could make can be written down, and made up by hypothesis.
"""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from embedded.stripe_standin.objects import new_id as stripe_id
from models import tables
from models.outcomes import Refused
from models.settings import DispatchSettings
from models.wire import RequestView
from tests.integration.money import checkout, page_for_later, signed, state
from tests.parts import WEBHOOK_SECRET, Node, World, eventually, running_node, running_world, side_by_side

NEW_SECRET = "whsec_new"
TOO_OLD_S = 3600
PRICE_CENTS = 999
PATIENCE_S = 30.0
ALL_DAY = DispatchSettings(priority_window_ms=86_400_000, broadcast_window_ms=86_400_000, refund_retry_first_ms=100)
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
    intent_id: str | None = None
    """Of the payment; ``None`` until somebody looks at it."""
    mechanic_id: str = ""

    @classmethod
    async def begin(cls, teller: Teller) -> "Story":
        world, (a, _) = teller.world, teller.nodes
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        url = await page_for_later(world, a, opened.checkout_id)
        await world.hold_webhooks(url)
        row = await world.row(tables.Checkout, opened.checkout_id)
        assert row.stripe_session_id is not None
        return cls(teller, customer_id, row.id, row.stripe_session_id, url)

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

    async def look_at_payment(self) -> None:
        """From now on everything that is told of the payment is a part of the story."""
        session = await self.teller.world.at_stripe(f"checkout/sessions/{self.session_id}")
        self.intent_id = session["payment_intent"]

    async def move(self, action: str, **fields: str) -> None:
        """Let something happen to the money that was paid, as the stand-in's page offers it, if it still can."""
        answer = await self.teller.world.browser.post(f"{self.url}/money", data={"action": action, **fields})
        assert answer.status_code in (303, 409), answer.text

    async def move_last(self, kind: str, action: str) -> None:
        """Let something happen to the last refund or dispute of the payment, if there is one."""
        if listed := (await self.teller.world.at_stripe(f"{kind}s", payment_intent=self.intent_id or ""))["data"]:
            await self.move(action, **{kind: listed[0]["id"]})

    async def events(self) -> list[dict[str, Any]]:
        """Return what Stripe would have told us so far, oldest first."""
        listed = (await self.teller.world.at_stripe("events", limit="30"))["data"]
        about = {event["id"]: event["data"]["object"] for event in listed}

        def is_ours(event: dict[str, Any]) -> bool:
            subject = about[event["id"]]
            is_of_payment = self.intent_id is not None and subject.get("payment_intent") == self.intent_id
            is_of_checkout = subject["metadata"].get("checkout_id") == self.checkout_id
            return subject["id"] == self.session_id or is_of_payment or is_of_checkout

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

    async def request(self) -> RequestView:
        """Return the request as its customer sees it."""
        row = await self.teller.world.row(tables.Checkout, self.checkout_id)
        assert row.request_id is not None
        return await self.teller.world.request(self.teller.nodes[0], self.customer_id, row.request_id)

    async def be_accepted(self) -> None:
        """Have a mechanic accept the request, if it is offered."""
        await self.is_at_rest()
        request, a = await self.request(), self.teller.nodes[0]
        if request.offer is not None:
            self.mechanic_id = await self.teller.world.mechanic()
            answer = await a.dispatch.accept(self.mechanic_id, request.offer.id, received_at_ms=a.clock.now_ms())
            assert isinstance(answer, RequestView), answer

    async def be_started(self) -> None:
        """Have a mechanic start the session, if it can begin."""
        await self.be_accepted()
        await self.teller.nodes[1].dispatch.start(self.mechanic_id, (await self.request()).id)

    async def be_completed(self) -> None:
        """Have a mechanic end the session, if there is one."""
        await self.be_started()
        await self.teller.nodes[0].dispatch.complete(self.mechanic_id, (await self.request()).id)

    async def be_refunded_by_operator(self) -> None:
        answer = await self.teller.nodes[0].dispatch.refund((await self.request()).id, "They called us.")
        assert isinstance(answer, RequestView)

    async def be_retried_by_operator(self) -> None:
        await self.is_at_rest()
        await self.teller.nodes[1].refunds.retry((await self.request()).id)

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
            events = await self.teller.world.rows(tables.StripeEvent, processed_at_ms=None)
            refunds = await self.teller.world.rows(tables.Refund, checkout_id=self.checkout_id)
            return not events and all([one.settled_at_ms or await self.is_waiting(one) for one in refunds])

        await eventually(has_come_to_rest, "all events worked on, all refunds at their end", within_s=PATIENCE_S)

    async def is_waiting(self, refund: tables.Refund) -> bool:
        """Tell whether a refund waits for others: for the end of a dispute, or for a bank."""
        ledgers = await self.teller.world.rows(tables.PaymentLedger, checkout_id=self.checkout_id)
        is_put_off = (refund.next_attempt_at_ms or 0) > self.teller.nodes[0].clock.now_ms() + 60_000
        return is_put_off and any(one.dispute == "open" or one.on_its_way_cents for one in ledgers)

    async def sums(self) -> str:
        """Return how the request ends, and where the money is: by us, by others and by the bank; and what the customer reads.

        Fails unless that is what Stripe has, and adds up.
        """
        world, request = self.teller.world, await self.request()
        listed = (await world.at_stripe("refunds", payment_intent=self.intent_id or ""))["data"]
        alive = [one for one in listed if one["status"] != "failed"]
        by_us = sum(one["amount"] for one in alive if one["metadata"])
        by_others = sum(one["amount"] for one in alive if not one["metadata"])
        disputes = (await world.at_stripe("disputes", payment_intent=self.intent_id or ""))["data"]
        taken = sum(one["amount"] for one in disputes if one["status"] == "lost")
        ledgers = await world.rows(tables.PaymentLedger, checkout_id=self.checkout_id)
        written = [(one.by_us_cents, one.by_others_cents, one.taken_cents) for one in ledgers]
        assert (written or [(0, 0, 0)]) == [(by_us, by_others, taken)]
        # What others give back, and a bank takes as well, is not ours to prevent; we never add to it.
        assert by_us + by_others <= PRICE_CENTS
        assert not by_us or by_us + by_others + taken <= PRICE_CENTS
        is_served = request.status not in ("cancelled", "unfilled")
        is_back = by_us + by_others + taken >= PRICE_CENTS
        assert is_served or is_back or (request.refund is not None and request.refund.status != "succeeded")
        refund = "nothing" if request.refund is None else f"{request.refund.amount_cents} {request.refund.status}"
        disputed = ", disputed" if request.disputed else ""
        return f"{request.status}: {by_us} by us, {by_others} by others, {taken} by the bank; reads {refund}{disputed}"

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
MOVES: dict[str, Callable[[Story], Awaitable[None]]] = {
    "the payment is looked at": Story.look_at_payment,
    "3 are refunded at Stripe": lambda story: story.move("refund", amount="3.00"),
    "3 are refunded at Stripe, slowly": lambda story: story.move("refund", amount="3.00", outcome="pending"),
    "the rest is refunded at Stripe": lambda story: story.move("refund"),
    "the rest is refunded at Stripe, slowly": lambda story: story.move("refund", outcome="pending"),
    "the refund arrives": lambda story: story.move_last("refund", "settle"),
    "the refund fails": lambda story: story.move_last("refund", "fail"),
    "Stripe has no money for a refund": lambda story: story.move("fault", fault="balance_insufficient", times="2"),
    "Stripe breaks before a refund": lambda story: story.move("fault", fault="error", times="2"),
    "Stripe breaks after a refund": lambda story: story.move("fault", fault="error_after"),
    "our refund is slow": lambda story: story.move("fault", fault="pending"),
    "the bank disputes": lambda story: story.move("dispute"),
    "the bank disputes the rest": lambda story: story.move("dispute", amount="6.99"),
    "the bank disputes 4": lambda story: story.move("dispute", amount="4.00"),
    "the bank asks": lambda story: story.move("dispute", kind="inquiry"),
    "the bank looks at it": lambda story: story.move_last("dispute", "review"),
    "the bank decides for us": lambda story: story.move_last("dispute", "win"),
    "the bank decides against us": lambda story: story.move_last("dispute", "lose"),
    "the bank has asked enough": lambda story: story.move_last("dispute", "close"),
    "the bank disputes after all": lambda story: story.move_last("dispute", "escalate"),
    "a mechanic accepts": Story.be_accepted,
    "a mechanic starts": Story.be_started,
    "a mechanic completes": Story.be_completed,
    "the operator refunds": Story.be_refunded_by_operator,
    "the operator tries again": Story.be_retried_by_operator,
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


@contextmanager
def stage_of_stories(template: Path, redis_url: str, folder: Path) -> Iterator[tuple[BlockingPortal, Teller]]:
    """One world with two nodes for all stories of a module, in a thread of its own, where hypothesis can reach it, too."""
    shutil.copyfile(template, folder / "pitlane.sqlite3")
    with start_blocking_portal() as portal:
        running = teller(f"sqlite:///{folder / 'pitlane.sqlite3'}", redis_url, folder)
        with portal.wrap_async_context_manager(running) as one:
            yield portal, one
