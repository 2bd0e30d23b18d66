"""Tickets for the socket handshake."""

from http_api.auth import Tickets
from http_api.rest.operation import SIGNED_IN, Call, Operation, operation
from http_api.rest.rate_limit import RateLimit
from models.outcomes import Refused
from models.rest import Ticket


def operations(tickets: Tickets, of_account: RateLimit) -> list[Operation]:
    """Return this module's part of the table. ``of_account``: how often one may ask."""

    @operation(
        "POST",
        "/api/ws-ticket",
        roles=SIGNED_IN,
        answers={200: Ticket},
        problems=("too_many_requests", "unavailable"),
    )
    async def issue_ticket(call: Call) -> Ticket | Refused:
        """Get a ticket that opens one socket, once, as `?ticket=`."""
        if (too_many := await of_account.take(call.account_id)) is not None:
            return too_many
        return Ticket(await tickets.issue(call.identity), tickets.lifetime_s)

    return [issue_ticket]
