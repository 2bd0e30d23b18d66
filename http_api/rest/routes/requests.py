"""A session request, for its customer and for the mechanic who has it."""

from typing import Annotated

from msgspec import Meta, Struct

from dispatch.reading.reader import Reader
from dispatch.service import Dispatch
from http_api.rest.operation import CUSTOMER, CUSTOMER_OR_MECHANIC, MECHANIC, Call, Operation, operation
from models.outcomes import Refused
from models.rest import FindAnotherBody, ReasonBody, RequestAnswer, Requests
from models.wire import Id, RequestView
from models.words import RequestStatus, Role

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
        "/api/requests/{id}/find-another",
        roles=CUSTOMER,
        body=FindAnotherBody,
        body_is_optional=True,
        answers={200: RequestAnswer},
        problems=ACTION_PROBLEMS,
    )
    async def find_another(call: Call) -> RequestAnswer | Refused:
        """Take the request from the mechanic who has accepted it and not started: it is broadcast again, without them.

        With `mechanic_id` it is taken from that mechanic alone: repeated, or late, it never costs whoever has it by then.
        """
        mechanic_id = call.body_as(FindAnotherBody).mechanic_id
        return _answer(await dispatch.find_another(call.account_id, call.path["id"], mechanic_id))

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
        roles=CUSTOMER_OR_MECHANIC,
        answers={200: RequestAnswer},
        problems=ACTION_PROBLEMS,
    )
    async def complete_session(call: Call) -> RequestAnswer | Refused:
        """End the session: the customer has been served. Whichever of the two comes second is answered the same."""
        by_mechanic = call.identity.role == Role.MECHANIC
        complete = dispatch.complete if by_mechanic else dispatch.complete_by_customer
        return _answer(await complete(call.account_id, call.path["id"]))

    @operation(
        "POST",
        "/api/requests/{id}/report",
        roles=CUSTOMER,
        body=ReasonBody,
        answers={200: RequestAnswer},
        problems=("already_reported", "validation_failed", *ACTION_PROBLEMS),
    )
    async def report_session(call: Call) -> RequestAnswer | Refused:
        """Say that something was wrong with a session, once, within seven days of its end. An operator sees it."""
        return _answer(await dispatch.report(call.account_id, call.path["id"], call.body_as(ReasonBody).reason))

    @operation(
        "POST",
        "/api/requests/{id}/release",
        roles=MECHANIC,
        answers={200: RequestAnswer},
        problems=ACTION_PROBLEMS,
    )
    async def release_request(call: Call) -> RequestAnswer | Refused:
        """Give the request back: it is broadcast again, without this mechanic. Repeated, it answers what has become of it."""
        return _answer(await dispatch.release(call.account_id, call.path["id"]))

    return [
        list_requests,
        read_request,
        skip_wait,
        cancel_request,
        find_another,
        start_session,
        complete_session,
        report_session,
        release_request,
    ]


def _answer(result: RequestView | Refused) -> RequestAnswer | Refused:
    return result if isinstance(result, Refused) else RequestAnswer(result)
