"""What a mechanic may take."""

from http_api.rest.operation import MECHANIC, Call, operation
from models.outcomes import Refused
from models.rest import DeclineBody, Offers, RequestAnswer


@operation("GET", "/api/offers", roles=MECHANIC, answers={200: Offers}, problems=("unavailable",))
async def list_offers(call: Call) -> Offers:
    """List the offers that are open to the mechanic now."""
    return Offers([open_offer.offer for open_offer in await call.services.reading.offers_for(call.account_id)])


@operation(
    "POST",
    "/api/offers/{id}/accept",
    roles=MECHANIC,
    answers={200: RequestAnswer},
    problems=("offer_gone", "already_in_session", "unavailable"),
)
async def accept_offer(call: Call) -> RequestAnswer | Refused:
    """Take the request that the offer is for; of several mechanics the first gets it."""
    result = await call.services.dispatch.accept(call.account_id, call.path["id"], received_at_ms=call.received_at_ms)
    return result if isinstance(result, Refused) else RequestAnswer(result)


@operation(
    "POST",
    "/api/offers/{id}/decline",
    roles=MECHANIC,
    body=DeclineBody,
    body_is_optional=True,
    answers={204: None},
    problems=("offer_gone", "unavailable"),
)
async def decline_offer(call: Call) -> Refused | None:
    """Never be asked for this request again; a priority window ends at once."""
    return await call.services.dispatch.decline(call.account_id, call.path["id"], call.body.reason)


OPERATIONS = [list_offers, accept_offer, decline_offer]
