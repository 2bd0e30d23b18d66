"""What a mechanic may take."""

from dispatch.reading.reader import Reader
from dispatch.service import Dispatch
from http_api.rest.operation import MECHANIC, Call, Operation, operation
from models.outcomes import Refused
from models.rest import DeclineBody, Offers, RequestAnswer


def operations(dispatch: Dispatch, reader: Reader) -> list[Operation]:
    """Return this module's part of the table."""

    @operation("GET", "/api/offers", roles=MECHANIC, answers={200: Offers}, problems=("unavailable",))
    async def list_offers(call: Call) -> Offers:
        """List the offers that are open to the mechanic now."""
        found = await reader.offers([call.account_id])
        return Offers([timed.offer for timed in found.get(call.account_id, ())])

    @operation(
        "POST",
        "/api/offers/{id}/accept",
        roles=MECHANIC,
        answers={200: RequestAnswer},
        problems=("offer_gone", "already_in_session", "unavailable"),
    )
    async def accept_offer(call: Call) -> RequestAnswer | Refused:
        """Take the request that the offer is for; of several mechanics the first gets it."""
        result = await dispatch.accept(call.account_id, call.path["id"], received_at_ms=call.received_at_ms)
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
        return await dispatch.decline(call.account_id, call.path["id"], call.body_as(DeclineBody).reason)

    return [list_offers, accept_offer, decline_offer]
