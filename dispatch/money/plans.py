"""What can be bought, and by whom."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import col, select

from dispatch.stored import SQL
from infra.database import Database
from infra.statements import Statement
from models.outcomes import Refused
from models.rest import PlanView
from models.tables import Account, Plan


@dataclass(frozen=True)
class Currency:
    """A row of ``usual_currency``."""

    code: str


USUAL_CURRENCY = Statement(SQL / "usual_currency.sql", Currency)


class Plans:
    """The plans of the database, in their order."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, customer_id: str | None) -> list[PlanView]:
        """Return all plans; ``eligible`` as for this customer, or as for a new one if ``None``."""
        async with self._database.read() as session:
            customer = await session.get(Account, customer_id) if customer_id else None
            plans = list(await session.exec(select(Plan).order_by(col(Plan.position))))
        has_used_free = customer is not None and customer.free_session_used
        return [
            PlanView(
                id=plan.id,
                name=plan.name,
                price_cents=plan.price_cents,
                currency=plan.currency,
                duration_min=plan.duration_min,
                session_type=plan.session_type,
                first_time_only=plan.first_time_only,
                eligible=not (plan.first_time_only and has_used_free),
            )
            for plan in plans
        ]

    async def session_type_of(self, plan_id: str) -> str | Refused:
        """Return the kind of session that a plan buys."""
        async with self._database.read() as session:
            plan = await session.get(Plan, plan_id)
        return no_such_plan(plan_id) if plan is None else plan.session_type


def usual(found: Sequence[Currency]) -> str:
    """Return the currency that plans are sold in, of what ``USUAL_CURRENCY`` has found; empty while there are no plans."""
    return found[0].code if found else ""


def no_such_plan(plan_id: str) -> Refused:
    """Refuse a plan that there is not."""
    return Refused("unknown_plan", f"There is no plan {plan_id!r}; GET /api/plans lists them.")
