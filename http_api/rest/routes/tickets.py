"""Tickets for the socket handshake."""

from http_api.rest.operation import SIGNED_IN, Call, operation
from models.rest import Ticket


@operation("POST", "/api/ws-ticket", roles=SIGNED_IN, answers={200: Ticket}, problems=("unavailable",))
async def issue_ticket(call: Call) -> Ticket:
    """Get a ticket that opens one socket, once, as `?ticket=`."""
    tickets = call.services.tickets
    return Ticket(await tickets.issue(call.identity), tickets.lifetime_s)


OPERATIONS = [issue_ticket]
