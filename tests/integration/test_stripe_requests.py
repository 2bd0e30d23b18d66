"""What we send to Stripe and read from its answers, held against the types of the ``stripe`` package that is installed.

The package is generated from Stripe's own description of its API, so a parameter that was renamed or taken away shows here, before
the real Stripe refuses it. Looked at on the wire: what the SDK has really sent through a proxy to the stand-in.
"""

import re
import sys
import typing
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import stripe
from stripe.params import (
    DisputeListParams,
    PaymentIntentRetrieveParams,
    RefundCreateParams,
    RefundListParams,
    RefundRetrieveParams,
)
from stripe.params.checkout import (
    SessionCreateParams,
    SessionExpireParams,
    SessionListParams,
    SessionRetrieveParams,
)

from dispatch.money import stripe_api
from embedded.stripe_standin.params import nest
from models import tables
from tests.integration.money import checkout, session_id_of
from tests.integration.stripe_types import assert_declared, declared
from tests.parts import eventually, running_node, running_world
from tests.stripe_proxy import CALLS, Seen, StripeProxy, stripe_proxy

TYPES: dict[str, tuple[type, type[stripe.StripeObject]]] = {
    "create": (SessionCreateParams, stripe.checkout.Session),
    "retrieve": (SessionRetrieveParams, stripe.checkout.Session),
    "list": (SessionListParams, stripe.checkout.Session),
    "expire": (SessionExpireParams, stripe.checkout.Session),
    "refund": (RefundCreateParams, stripe.Refund),
    "retrieve_refund": (RefundRetrieveParams, stripe.Refund),
    "retrieve_intent": (PaymentIntentRetrieveParams, stripe.PaymentIntent),
    "list_refunds": (RefundListParams, stripe.Refund),
    "list_disputes": (DisputeListParams, stripe.Dispute),
}
NUMBERS: dict[Any, str] = {int: r"-?\d+", float: r"-?\d+(\.\d+)?", Decimal: r"-?\d+(\.\d+)?", bool: r"true|false"}


@asynccontextmanager
async def everything_asked(database_url: str, redis_url: str, folder: Path) -> AsyncIterator[StripeProxy]:
    """Make every call that we ever make, through a proxy that remembers."""
    async with (
        running_world(database_url, redis_url, folder) as world,
        stripe_proxy(world.stripe_url) as proxy,
        running_node(world, stripe=replace(world.stripe, api_base=f"{proxy.base_url}/stripe")) as a,
    ):
        customer_id, favorite = await world.customer(), await world.mechanic()
        older = await checkout(a, customer_id, favorite=favorite)
        newer = await checkout(a, customer_id, favorite=favorite)
        older_id = await session_id_of(world, older.checkout_id)
        await eventually(lambda: proxy.made("expire"), f"{older_id} is expired")
        await world.pay(newer.url)
        paid = await a.checkouts.state(customer_id, newer.checkout_id)
        await a.dispatch.cancel(customer_id, paid.request_id)

        async def is_refunded() -> bool:
            return any(refund.settled_at_ms for refund in await world.rows(tables.Refund))

        await eventually(is_refunded, "refunded")
        # What events of an older version do not say.
        await a.stripe_api.intent_of("refunds", proxy.made("refund")[0].answer["id"])
        await world.play_money(newer.url, "dispute", kind="inquiry")
        await eventually(lambda: proxy.made("list_disputes"), "the dispute's webhook is worked on")
        async for _ in a.reconciler.repairs():
            pass
        yield proxy


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_all_that_we_send_and_read_is_what_the_package_declares(database_url, redis_url, tmp_path):
    async with everything_asked(database_url, redis_url, tmp_path) as proxy:
        assert {one.call for one in proxy.seen} == CALLS.keys() == TYPES.keys()
        for one in proxy.seen:
            assert one.status == 200
            sent = nest(parse_qsl(one.body or one.query, keep_blank_values=True))
            assert list(misfits(sent, TYPES[one.call][0], one.call)) == []
            for answer in one.answer["data"] if one.call.startswith("list") else [one.answer]:
                assert_declared(answer, TYPES[one.call][1])
                assert_read(answer, one)
        for call in ("create", "refund"):
            # What must not be done twice has a name of its own.
            assert all(re.fullmatch(r"(checkout|refund):\w+", one.idempotency_key or "") for one in proxy.made(call))


def misfits(value: Any, kind: Any, at: str) -> Iterator[str]:
    """Tell what of ``value``, as it was decoded from a form, does not fit a type of the package's parameters."""
    kind, origin = unwrapped(kind), typing.get_origin(unwrapped(kind))
    if origin is typing.Union:
        ways = [list(misfits(value, one, at)) for one in typing.get_args(kind)]
        yield from [] if [] in ways else [f"{at}: {value!r} is none of {kind}"]
    elif origin is typing.Literal:
        yield from [] if value in typing.get_args(kind) else [f"{at}: {value!r} is none of {kind}"]
    elif hasattr(kind, "__required_keys__"):
        # A TypedDict, typing's own or that of typing_extensions.
        if not isinstance(value, dict):
            yield f"{at}: {value!r} is no {kind.__name__}"
            return
        yield from [f"{at}: {name} is missing" for name in kind.__required_keys__ - value.keys()]
        for name, inner in value.items():
            if name in kind.__annotations__:
                yield from misfits(inner, member(kind, name), f"{at}[{name}]")
            else:
                yield f"{at}: {name} is not declared"
    elif isinstance(origin, type) and isinstance(value, dict):
        # A list, whose keys are its positions; or a map of free words.
        *_, inner_kind = typing.get_args(kind)
        for name, inner in value.items():
            if issubclass(origin, list) and not name.isdecimal():
                yield f"{at}: {name} is no position"
            yield from misfits(inner, inner_kind, f"{at}[{name}]")
    elif not isinstance(value, str) or not (kind is str or re.fullmatch(NUMBERS.get(kind, "(?!)"), value)):
        yield f"{at}: {value!r} is no {kind}"


def unwrapped(kind: Any) -> Any:
    while typing.get_origin(kind) in (typing.NotRequired, typing.Required, typing.Annotated):
        kind = typing.get_args(kind)[0]
    return kind


def member(kind: type, name: str) -> Any:
    """Return a member's type; one alone, for the names in some others are only there for type checkers."""
    alone = type("Alone", (), {"__annotations__": {name: kind.__annotations__[name]}})
    return typing.get_type_hints(alone, globalns=vars(sys.modules[kind.__module__]), include_extras=True)[name]


class Noticing(dict[str, Any]):
    """An answer that notices what is read of it."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(
            {name: Noticing(value) if isinstance(value, dict) else value for name, value in answer.items()}
        )
        self.read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def to_dict(self) -> "Noticing":
        return self


def assert_read(answer: dict[str, Any], one: Seen) -> None:
    """Require that what our own code reads of an answer is in it, and is declared."""
    noticing = Noticing(answer)
    kind = TYPES[one.call][1]
    if kind is stripe.Refund:
        stripe_api._refund(noticing, "refund-1")
        stripe_api._intent_of(noticing)
    elif kind is stripe.Dispute:
        stripe_api._dispute(noticing)
    elif kind is stripe.PaymentIntent:
        assert_declared(noticing["latest_charge"], stripe.Charge)
    else:
        stripe_api._session(noticing)
        assert not isinstance(noticing["payment_intent"], Noticing) or noticing["payment_intent"].read
    assert_known(noticing, kind)


def assert_known(noticing: "Noticing", kind: type[stripe.StripeObject]) -> None:
    assert noticing.read <= declared(kind).keys() & noticing.keys()
    for name, inner_kind in (("payment_intent", stripe.PaymentIntent), ("latest_charge", stripe.Charge)):
        inner = noticing[name] if name in noticing.read else None
        if isinstance(inner, Noticing) and inner.read:
            assert_known(inner, inner_kind)


def test_what_we_read_of_an_event_is_what_the_package_declares():
    assert set(stripe_api.WebhookEvent.__struct_fields__) <= declared(stripe.Event).keys()


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": {"0": "payment"}},
        {"line_items": {"0": {"quantity": "many"}}},
        {"line_items": {"first": {"quantity": "1"}}},
        {"payment_method_types": {"0": "card"}},
        {"metadata": {"plan": {"id": "quick_chat"}}},
        {"expires_at": "tomorrow"},
        {"payment_intent_data": {"metadate": {"plan": "quick_chat"}}},
        {"line_items": {"0": {"price_data": {"unit_amount": "999"}}}},
    ],
)
def test_the_comparison_notices_what_the_package_does_not_declare(wrong: dict[str, Any]):
    assert list(misfits(wrong, SessionCreateParams, "create")) != []
