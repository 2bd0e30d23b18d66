"""Waking people's browsers (Web Push, RFC 8030) while no page of theirs is open."""

from dispatch.push.subscriptions import Subscriptions
from dispatch.push.vapid import Vapid
from http_api.rest.operation import CUSTOMER_OR_MECHANIC, Answer, Call, Operation, operation
from models.outcomes import Refused
from models.rest import (
    PushKey,
    PushSubscribeBody,
    PushSubscribed,
    PushSubscriptions,
    PushTestBody,
    PushUnsubscribeBody,
)

PATH = "/api/push/subscriptions"


def operations(subscriptions: Subscriptions, vapid: Vapid) -> list[Operation]:
    """Return this module's part of the table."""

    @operation("GET", "/api/push/key", roles=CUSTOMER_OR_MECHANIC, answers={200: PushKey}, problems=("unavailable",))
    async def read_push_key(call: Call) -> PushKey:
        """Give the VAPID key that a browser needs to subscribe (`applicationServerKey`)."""
        return PushKey(await vapid.public_key())

    @operation("GET", PATH, roles=CUSTOMER_OR_MECHANIC, answers={200: PushSubscriptions}, problems=("unavailable",))
    async def list_push_subscriptions(call: Call) -> PushSubscriptions:
        """List the browsers in which the caller can be woken, the oldest first.

        A page knows its own by `endpoint_hash`. One whose push service keeps failing is left out: subscribe it anew.
        """
        return PushSubscriptions(await subscriptions.of(call.account_id))

    @operation(
        "POST",
        PATH,
        roles=CUSTOMER_OR_MECHANIC,
        body=PushSubscribeBody,
        answers={201: PushSubscribed, 200: PushSubscribed},
        problems=("push_endpoint_refused", "push_keys_refused", "unavailable"),
    )
    async def subscribe_push(call: Call) -> Answer | Refused:
        """Remember where this browser can be woken; idempotent by endpoint.

        The body is what `PushSubscription.toJSON()` gives. 201 for a new one, 200 for one that was there. A browser belongs to who
        subscribed it last. Of an account the ten newest are kept.
        """
        outcome = await subscriptions.subscribe(call.account_id, call.body_as(PushSubscribeBody))
        if isinstance(outcome, Refused):
            return outcome
        subscribed, is_new = outcome
        return Answer(201 if is_new else 200, subscribed)

    @operation(
        "DELETE",
        PATH,
        roles=CUSTOMER_OR_MECHANIC,
        body=PushUnsubscribeBody,
        answers={204: None},
        problems=("unavailable",),
    )
    async def unsubscribe_push(call: Call) -> None:
        """Forget this browser, by its endpoint; idempotent."""
        await subscriptions.unsubscribe(call.account_id, call.body_as(PushUnsubscribeBody).endpoint)

    @operation("DELETE", f"{PATH}/{{id}}", roles=CUSTOMER_OR_MECHANIC, answers={204: None}, problems=("unavailable",))
    async def forget_push_subscription(call: Call) -> Refused | None:
        """Forget any browser of the caller's."""
        return await subscriptions.unsubscribe_one(call.account_id, call.path["id"])

    @operation(
        "POST",
        "/api/push/test",
        roles=CUSTOMER_OR_MECHANIC,
        body=PushTestBody,
        body_is_optional=True,
        answers={202: None},
        problems=("no_subscription", "too_many_requests", "unavailable"),
    )
    async def test_push(call: Call) -> Answer | Refused:
        """Send `{"type": "test"}` to the caller's browsers, or to the one that `endpoint` names.

        202: it is on its way. At most three times a minute.
        """
        refused = await subscriptions.try_out(call.account_id, call.body_as(PushTestBody).endpoint)
        return refused or Answer(202)

    return [
        read_push_key,
        list_push_subscriptions,
        subscribe_push,
        unsubscribe_push,
        forget_push_subscription,
        test_push,
    ]
