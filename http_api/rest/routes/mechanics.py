"""Who is here: the status of mechanics."""

from typing import Annotated

from msgspec import Meta, Struct

from dispatch.money.plans import Plans
from http_api.rest.operation import SIGNED_IN, Call, Operation, operation
from models.outcomes import Refused
from models.rest import AvailableCount, Statuses
from models.wire import WATCH_MAX, Id, StatusView
from presence.service import Presence


class StatusQuery(Struct):
    ids: Annotated[list[Id], Meta(min_length=1, max_length=WATCH_MAX, description="Mechanics, separated by commas")]


class AvailabilityQuery(Struct):
    plan: Annotated[str, Meta(max_length=64, description="Only those who take sessions of this plan's kind")] | None = (
        None
    )


def operations(presence: Presence, plans: Plans) -> list[Operation]:
    """Return this module's part of the table."""

    @operation(
        "GET",
        "/api/mechanics/status",
        roles=SIGNED_IN,
        query=StatusQuery,
        answers={200: Statuses},
        problems=("unavailable",),
    )
    async def mechanic_statuses(call: Call) -> Statuses:
        """Tell what is true of several mechanics now; ids of no mechanic are left out."""
        wanted = list(dict.fromkeys(call.query_as(StatusQuery).ids))
        statuses = await presence.status_of(wanted)
        return Statuses([statuses[mechanic_id] for mechanic_id in wanted if mechanic_id in statuses])

    @operation(
        "GET",
        "/api/mechanics/availability",
        roles=SIGNED_IN,
        query=AvailabilityQuery,
        answers={200: AvailableCount},
        problems=("unknown_plan", "unavailable"),
    )
    async def available_count(call: Call) -> AvailableCount | Refused:
        """Count whom a broadcast would reach now: online, on duty and not in a session."""
        plan_id = call.query_as(AvailabilityQuery).plan
        if plan_id is None:
            return AvailableCount(await presence.available_count())
        session_type = await plans.session_type_of(plan_id)
        if isinstance(session_type, Refused):
            return session_type
        return AvailableCount(await presence.available_count(session_type))

    @operation(
        "GET",
        "/api/mechanics/{id}/status",
        roles=SIGNED_IN,
        answers={200: StatusView},
        problems=("unavailable",),
        unknown_id="mechanic_not_found",
    )
    async def mechanic_status(call: Call) -> StatusView | Refused:
        """Tell what is true of a mechanic now."""
        mechanic_id = call.path["id"]
        statuses = await presence.status_of([mechanic_id])
        return statuses.get(mechanic_id) or Refused("mechanic_not_found", "There is no such mechanic.")

    return [mechanic_statuses, available_count, mechanic_status]
