"""What can be bought, and by whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlmodel import col, select

from dispatch.stored import SQL
from infra.database import Database
from infra.statements import Statement
from models.currencies import why_not_charged
from models.ids import is_id
from models.outcomes import Refused
from models.rest import PlanView
from models.session_types import SESSION_TYPES
from models.tables import Account, Plan
from models.text import NAME_LEN_MAX, kept

DURATION_MIN_MAX: Final = 24 * 60
POSITION_MAX: Final = 1_000_000


@dataclass(frozen=True)
class Currency:
    """A row of ``usual_currency``."""

    code: str


USUAL_CURRENCY = Statement(SQL / "usual_currency.sql", Currency)


@dataclass(frozen=True)
class PlanChange:
    """What an operator wants to be different about a plan; ``None`` leaves it as it is."""

    name: str | None = None
    price_cents: int | None = None
    currency: str | None = None
    duration_min: int | None = None
    session_type: str | None = None
    first_time_only: bool | None = None
    position: int | None = None


def changed(plan: Plan | None, plan_id: str, change: PlanChange) -> Plan | Refused:
    """Return the plan after the change, a new one where there is none yet, or why it cannot be. Pure.

    A new plan needs a name, a price, a duration and a kind of session; it is in dollars, for everybody, and comes last unless
    the change says otherwise.
    """
    wanted = {name: value for name, value in vars(change).items() if value is not None}
    if plan is None:
        missing = [name for name in ("name", "price_cents", "duration_min", "session_type") if name not in wanted]
        if missing:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
            return Refused("unknown_plan", f"There is no plan {plan_id!r} yet; to add it, say also {options}.")
        before: dict[str, object] = {
            "id": plan_id,
            "currency": "usd",
            "first_time_only": False,
            "position": POSITION_MAX,
        }
    else:
        before = {name: getattr(plan, name) for name in Plan.model_fields}
    after = Plan.model_validate(before | wanted)
    name = kept(after.name, "name", len_max=NAME_LEN_MAX, is_optional=False)
    if isinstance(name, Refused):
        return name
    after.name = name
    after.currency = after.currency.lower()
    why_not = why_not_charged(after.price_cents, after.currency)
    if not is_id(plan_id):
        why_not = f"{plan_id!r} cannot be a plan's id; take letters, digits, - and _"
    elif not 1 <= after.duration_min <= DURATION_MIN_MAX:
        why_not = f"a session takes 1 to {DURATION_MIN_MAX} minutes"
    elif after.session_type not in SESSION_TYPES:
        why_not = f"the kinds of session are {', '.join(SESSION_TYPES)}"
    elif not 0 <= after.position <= POSITION_MAX:
        why_not = f"a position is a number from 0 to {POSITION_MAX}"
    return after if why_not is None else Refused("validation_failed", f"The plan is as it was: {why_not}.")


IN_ORDER = select(Plan).order_by(col(Plan.position), col(Plan.id))


class Plans:
    """The plans of the database, in their order."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, customer_id: str | None) -> list[PlanView]:
        """Return all plans; ``eligible`` as for this customer, or as for a new one if ``None``."""
        async with self._database.read() as session:
            customer = await session.get(Account, customer_id) if customer_id else None
            plans = list(await session.exec(IN_ORDER))
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

    async def all(self) -> list[Plan]:
        """Return all plans, as an operator changes them."""
        async with self._database.read() as session:
            return list(await session.exec(IN_ORDER))

    async def change(self, plan_id: str, change: PlanChange) -> Plan | Refused:
        """Change or add a plan; idempotent. What was bought already stays as it was bought."""
        async with self._database.write() as session:
            after = changed(await session.get(Plan, plan_id), plan_id, change)
            if isinstance(after, Plan):
                after = await session.merge(after)
            return after

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
