"""What a mechanic may take."""

from typing import Annotated

from msgspec import Meta, Struct

from dispatch.reading.past_offers import PastOffersReader
from dispatch.reading.reader import Reader
from dispatch.service import Dispatch
from http_api.rest.operation import MECHANIC, Call, Operation, operation
from models.outcomes import Refused
from models.rest import DeclineBody, Offers, PastOffers, RequestAnswer
from models.wire import Id


class PastOffersQuery(Struct):
    cursor: Annotated[Id, Meta(description="The `next_cursor` of the page before")] | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


def operations(dispatch: Dispatch, reader: Reader, past_offers: PastOffersReader) -> list[Operation]:
    """Return this module's part of the table."""

    @operation("GET", "/api/offers", roles=MECHANIC, answers={200: Offers}, problems=("unavailable",))
    async def list_offers(call: Call) -> Offers:
        """List the offers that are open to the mechanic now."""
        found = await reader.offers([call.account_id])
        return Offers([timed.offer for timed in found.get(call.account_id, ())])

    @operation(
        "GET",
        "/api/offers/past",
        roles=MECHANIC,
        query=PastOffersQuery,
        answers={200: PastOffers},
        problems=("unavailable",),
    )
    async def list_past_offers(call: Call) -> PastOffers | Refused:
        """List what the mechanic took, declined, missed or lost, the newest first.

        Priority offers to them, and broadcasts that were open while they were on duty. A page that is shorter than `limit`
        may have a `next_cursor` all the same.
        """
        query = call.query_as(PastOffersQuery)
        return await past_offers.page_of(call.account_id, cursor=query.cursor, limit=query.limit)

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
        result = await dispatch.decline(call.account_id, call.path["id"], call.body_as(DeclineBody).reason)
        return result if isinstance(result, Refused) else None

    return [list_offers, list_past_offers, accept_offer, decline_offer]
