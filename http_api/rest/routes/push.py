"""Waking a mechanic's browser (Web Push, RFC 8030) when no socket of theirs is open."""

from msgspec import Struct

from dispatch.push.subscriptions import Subscriptions
from dispatch.push.vapid import Vapid
from dispatch.reading.reader import Reader
from http_api.rest.operation import MECHANIC, Answer, Call, Operation, operation
from models.outcomes import Refused
from models.rest import PushKey, PushSubscribeBody, PushUnsubscribeBody

PATH = "/api/push/subscriptions"


class PushSubscribed(Struct):
    endpoint: str


def operations(subscriptions: Subscriptions, vapid: Vapid, reader: Reader) -> list[Operation]:
    """Return this module's part of the table."""

    @operation("GET", "/api/push/key", roles=MECHANIC, answers={200: PushKey}, problems=("unavailable",))
    async def read_push_key(call: Call) -> PushKey:
        """Give the VAPID key that a browser needs to subscribe (`applicationServerKey`)."""
        return PushKey(await vapid.public_key())

    @operation(
        "POST",
        PATH,
        roles=MECHANIC,
        body=PushSubscribeBody,
        answers={201: PushSubscribed, 200: PushSubscribed},
        problems=("push_endpoint_refused", "push_keys_refused", "unavailable"),
    )
    async def subscribe_push(call: Call) -> Answer | Refused:
        """Remember where this browser can be woken; idempotent by endpoint.

        The body is what `PushSubscription.toJSON()` gives. 201 for a new one, 200 for one that was there.
        """
        if call.account_id not in await reader.standings([call.account_id]):
            return Refused("unauthenticated", "This account is gone.")
        body = call.body_as(PushSubscribeBody)
        is_new = await subscriptions.subscribe(call.account_id, body)
        if isinstance(is_new, Refused):
            return is_new
        return Answer(201 if is_new else 200, PushSubscribed(body.endpoint))

    @operation("DELETE", PATH, roles=MECHANIC, body=PushUnsubscribeBody, answers={204: None}, problems=("unavailable",))
    async def unsubscribe_push(call: Call) -> None:
        """Forget it; idempotent."""
        await subscriptions.unsubscribe(call.account_id, call.body_as(PushUnsubscribeBody).endpoint)

    return [read_push_key, subscribe_push, unsubscribe_push]
