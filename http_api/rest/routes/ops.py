"""What the operations page shows, and what an operator does to requests and accounts."""

from accounts.accounts import Accounts
from accounts.revocations import Revocations
from dispatch.departures import Departures
from dispatch.money.refunds import Refunds
from dispatch.reading.ops import OpsReader
from dispatch.service import Dispatch
from http_api.rest.operation import ADMIN, Call, Operation, operation
from models.outcomes import NotFound, Refused
from models.rest import AccountState, OpsSnapshot, ReasonBody, RefundRetried, RequestAnswer, SettleBody


def operations(
    reader: OpsReader,
    dispatch: Dispatch,
    refunds: Refunds,
    accounts: Accounts,
    revocations: Revocations,
    departures: Departures,
) -> list[Operation]:
    """Return this module's part of the table."""

    @operation("GET", "/api/ops/snapshot", roles=ADMIN, answers={200: OpsSnapshot}, problems=("unavailable",))
    async def ops_snapshot(call: Call) -> OpsSnapshot:
        """Count and list what is open and what is owed."""
        return await reader.snapshot()

    @operation(
        "POST",
        "/api/ops/requests/{id}/refund",
        roles=ADMIN,
        body=ReasonBody,
        answers={200: RequestAnswer},
        problems=("validation_failed", "unavailable"),
    )
    async def refund_request(call: Call) -> RequestAnswer | Refused:
        """Give back what is left of what was paid, in any state; before the session has begun that cancels the request.

        Safe to repeat; a refund that has failed is then asked for once more.
        """
        result = await dispatch.refund(call.path["id"], call.body_as(ReasonBody).reason)
        if isinstance(result, Refused):
            return result
        if result.refund is not None and result.refund.status == "failed":
            await refunds.retry(result.id)
        return RequestAnswer(result)

    @operation(
        "POST",
        "/api/ops/refunds/{id}/retry",
        roles=ADMIN,
        answers={200: RefundRetried},
        problems=("not_found", "unavailable"),
    )
    async def retry_refund(call: Call) -> RefundRetried | Refused:
        """Ask Stripe once more for a refund that is owed or has failed, under a new key if it has failed. Safe to repeat."""
        is_retried = await refunds.retry(call.path["id"])
        if not is_retried and not await reader.knows_refund(call.path["id"]):
            return NotFound(detail="There is no such refund.")
        return RefundRetried(call.path["id"], is_retried)

    @operation(
        "POST",
        "/api/ops/requests/{id}/settle",
        roles=ADMIN,
        body=SettleBody,
        answers={200: RequestAnswer},
        problems=("wrong_state", "validation_failed", "unavailable"),
    )
    async def settle_request(call: Call) -> RequestAnswer | Refused:
        """End a request that is stuck: as completed if a mechanic has it, or as unfilled, which refunds it."""
        result = await dispatch.settle(call.path["id"], call.body_as(SettleBody).as_)
        return result if isinstance(result, Refused) else RequestAnswer(result)

    @operation(
        "POST", "/api/ops/accounts/{id}/disable", roles=ADMIN, answers={200: AccountState}, problems=("unavailable",)
    )
    async def disable_account(call: Call) -> AccountState | Refused:
        """Let nobody use an account: its tokens and its password are refused, and its sockets closed (4401). Safe to repeat.

        What a mechanic was offered, or has accepted and not started, goes to others. A session that is under way goes on.
        """
        return await set_disabled(call, True)

    @operation(
        "POST", "/api/ops/accounts/{id}/enable", roles=ADMIN, answers={200: AccountState}, problems=("unavailable",)
    )
    async def enable_account(call: Call) -> AccountState | Refused:
        """Let its owner use an account again, who has to sign in anew. Safe to repeat."""
        return await set_disabled(call, False)

    async def set_disabled(call: Call, is_disabled: bool) -> AccountState | Refused:
        if not await accounts.set_disabled(call.path["id"], is_disabled, now_ms=call.received_at_ms):
            return NotFound(detail="There is no such account.")
        await revocations.tell()
        departures.wake()
        return AccountState(call.path["id"], is_disabled)

    return [ops_snapshot, refund_request, retry_refund, settle_request, disable_account, enable_account]
