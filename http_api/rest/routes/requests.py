"""A session request, for its customer and for the mechanic who has it."""

from typing import Annotated

from msgspec import Meta, Struct

from dispatch.reading.reader import Reader
from dispatch.service import Dispatch
from http_api.rest.operation import CUSTOMER, CUSTOMER_OR_MECHANIC, MECHANIC, Call, Operation, operation
from models.outcomes import Refused
from models.rest import RequestAnswer, Requests
from models.wire import Id, RequestView
from models.words import RequestStatus

ACTION_PROBLEMS = ("wrong_state", "unavailable")


class RequestsQuery(Struct):
    status: Annotated[RequestStatus, Meta(description="Only those in this status")] | None = None
    cursor: Annotated[Id, Meta(description="The `next_cursor` of the page before")] | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


def operations(dispatch: Dispatch, reader: Reader) -> list[Operation]:
    """Return this module's part of the table."""

    @operation(
        "GET",
        "/api/requests",
        roles=CUSTOMER_OR_MECHANIC,
        query=RequestsQuery,
        answers={200: Requests},
        problems=("unavailable", "validation_failed"),
    )
    async def list_requests(call: Call) -> Requests:
        """List one's own requests, newest first."""
        query = call.query_as(RequestsQuery)
        return await reader.requests_of(
            call.account_id, call.identity.role, status=query.status, cursor=query.cursor, limit=query.limit
        )

    @operation(
        "GET",
        "/api/requests/{id}",
        roles=CUSTOMER_OR_MECHANIC,
        answers={200: RequestView},
        problems=("unavailable",),
    )
    async def read_request(call: Call) -> RequestView | Refused:
        """Show a request to its customer or to the mechanic who has it."""
        return await reader.request_for(call.account_id, call.path["id"])

    @operation(
        "POST",
        "/api/requests/{id}/skip-wait",
        roles=CUSTOMER,
        answers={200: RequestAnswer},
        problems=ACTION_PROBLEMS,
    )
    async def skip_wait(call: Call) -> RequestAnswer | Refused:
        """Stop waiting for the favourite and ask every mechanic."""
        return _answer(await dispatch.skip_wait(call.account_id, call.path["id"]))

    @operation(
        "POST",
        "/api/requests/{id}/cancel",
        roles=CUSTOMER,
        answers={200: RequestAnswer},
        problems=ACTION_PROBLEMS,
    )
    async def cancel_request(call: Call) -> RequestAnswer | Refused:
        """Cancel a request before its session has begun; what was paid is refunded."""
        return _answer(await dispatch.cancel(call.account_id, call.path["id"]))

    @operation(
        "POST",
        "/api/requests/{id}/start",
        roles=MECHANIC,
        answers={200: RequestAnswer},
        problems=ACTION_PROBLEMS,
    )
    async def start_session(call: Call) -> RequestAnswer | Refused:
        """Begin the session."""
        return _answer(await dispatch.start(call.account_id, call.path["id"]))

    @operation(
        "POST",
        "/api/requests/{id}/complete",
        roles=MECHANIC,
        answers={200: RequestAnswer},
        problems=ACTION_PROBLEMS,
    )
    async def complete_session(call: Call) -> RequestAnswer | Refused:
        """End the session: the customer has been served."""
        return _answer(await dispatch.complete(call.account_id, call.path["id"]))

    @operation(
        "POST",
        "/api/requests/{id}/release",
        roles=MECHANIC,
        answers={200: RequestAnswer},
        problems=ACTION_PROBLEMS,
    )
    async def release_request(call: Call) -> RequestAnswer | Refused:
        """Give the request back: it is broadcast again, without this mechanic."""
        return _answer(await dispatch.release(call.account_id, call.path["id"]))

    return [list_requests, read_request, skip_wait, cancel_request, start_session, complete_session, release_request]


def _answer(result: RequestView | Refused) -> RequestAnswer | Refused:
    return result if isinstance(result, Refused) else RequestAnswer(result)
