"""What the operations page shows."""

from dispatch.reading.ops import OpsReader
from http_api.rest.operation import ADMIN, Call, Operation, operation
from models.rest import OpsSnapshot


def operations(reader: OpsReader) -> list[Operation]:
    """Return this module's part of the table."""

    @operation("GET", "/api/ops/snapshot", roles=ADMIN, answers={200: OpsSnapshot}, problems=("unavailable",))
    async def ops_snapshot(call: Call) -> OpsSnapshot:
        """Count and list what is open and what is owed."""
        return await reader.snapshot()

    return [ops_snapshot]
