"""What can be bought, and buying it."""

from msgspec.structs import replace

from dispatch.money.checkout import Checkouts
from dispatch.money.plans import Plans
from dispatch.reading.reader import Reader
from http_api.rest.operation import ANYONE, CUSTOMER, Answer, Call, HeaderParameter, Operation, operation
from models import rest
from models.outcomes import Refused
from models.rest import CheckoutBody, CheckoutState, FreeCheckout, StripeCheckout
from models.words import Role

IDEMPOTENCY_KEY = HeaderParameter(
    "Idempotency-Key", r"[!-~]{1,255}", "1 to 255 visible ASCII characters; the same key never buys twice."
)


def operations(plans: Plans, checkouts: Checkouts, reader: Reader) -> list[Operation]:
    """Return this module's part of the table."""

    @operation("GET", "/api/plans", roles=ANYONE, answers={200: rest.Plans}, problems=("unavailable",))
    async def list_plans(call: Call) -> rest.Plans:
        """List what can be bought.

        `eligible` is for whoever asks; without signing in it is for a new customer.
        """
        identity = call.maybe_identity
        customer_id = identity.account_id if identity is not None and identity.role is Role.CUSTOMER else None
        return rest.Plans(await plans.of(customer_id))

    @operation(
        "POST",
        "/api/checkout",
        roles=CUSTOMER,
        body=CheckoutBody,
        header=IDEMPOTENCY_KEY,
        answers={201: (StripeCheckout, FreeCheckout)},
        problems=(
            "unknown_plan",
            "preferred_mechanic_required",
            "mechanic_not_found",
            "plan_not_offered",
            "free_session_used",
            "idempotency_key_reused",
            "checkout_refused",
            "too_many_requests",
            "stripe_unavailable",
            "unavailable",
        ),
    )
    async def create_checkout(call: Call) -> Answer | Refused:
        """Start paying for a plan, or get the free one at once.

        At most 20 payments can be open at a time, and the free plan can be booked ten times an hour: 429 then, with `Retry-After`.
        """
        key = call.headers.get(IDEMPOTENCY_KEY.name)
        checkout = await checkouts.start(call.account_id, call.body_as(CheckoutBody), idempotency_key=key)
        if isinstance(checkout, FreeCheckout):
            # Repeated, it may be of a session that has begun: then with who is there, and where it takes place.
            request = await reader.request_for(call.account_id, checkout.request.id)
            return request if isinstance(request, Refused) else Answer(201, replace(checkout, request=request))
        return checkout if isinstance(checkout, Refused) else Answer(201, checkout)

    @operation(
        "GET",
        "/api/checkout/{checkout_id}",
        roles=CUSTOMER,
        answers={200: CheckoutState},
        problems=("stripe_unavailable", "unavailable"),
    )
    async def read_checkout(call: Call) -> CheckoutState | Refused:
        """Tell how far a payment is; asking after it was made fulfils it at once if the webhook is late."""
        return await checkouts.state(call.account_id, call.path["checkout_id"])

    return [list_plans, create_checkout, read_checkout]
