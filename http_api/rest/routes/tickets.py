"""Tickets for the socket handshake."""

from http_api.auth import Tickets
from http_api.rest.operation import SIGNED_IN, Call, Operation, operation
from models.rest import Ticket


def operations(tickets: Tickets) -> list[Operation]:
    """Return this module's part of the table."""

    @operation("POST", "/api/ws-ticket", roles=SIGNED_IN, answers={200: Ticket}, problems=("unavailable",))
    async def issue_ticket(call: Call) -> Ticket:
        """Get a ticket that opens one socket, once, as `?ticket=`."""
        return Ticket(await tickets.issue(call.identity), tickets.lifetime_s)

    return [issue_ticket]
