"""How long a mechanic has worked."""

from datetime import date
from typing import Annotated

from msgspec import Meta, Struct, field

from dispatch.reading.hours_reader import HoursReader
from http_api.rest.operation import MECHANIC, Call, Operation, operation
from models.outcomes import Refused
from models.rest import Hours


class HoursQuery(Struct):
    first_day: Annotated[date, Meta(description="The first day, UTC")] | None = field(name="from", default=None)
    last_day: Annotated[date, Meta(description="The last day, included; without it, today")] | None = field(
        name="to", default=None
    )


def operations(hours: HoursReader) -> list[Operation]:
    """Return this module's part of the table."""

    @operation(
        "GET", "/api/me/hours", roles=MECHANIC, query=HoursQuery, answers={200: Hours}, problems=("unavailable",)
    )
    async def read_hours(call: Call) -> Hours | Refused:
        """Tell how long the mechanic was on duty and in sessions, and what these earned, day by day.

        The last seven days (UTC), or those from `from` to `to`, at most 92.
        """
        query = call.query_as(HoursQuery)
        return await hours.hours_of(call.account_id, query.first_day, query.last_day)

    return [read_hours]
