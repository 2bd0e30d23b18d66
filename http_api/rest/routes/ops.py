"""What the operations page shows."""

from http_api.rest.operation import ADMIN, Call, operation
from models.rest import OpsSnapshot


@operation("GET", "/api/ops/snapshot", roles=ADMIN, answers={200: OpsSnapshot}, problems=("unavailable",))
async def ops_snapshot(call: Call) -> OpsSnapshot:
    """Count and list what is open and what is owed."""
    return await call.services.reading.ops_snapshot()


OPERATIONS = [ops_snapshot]
