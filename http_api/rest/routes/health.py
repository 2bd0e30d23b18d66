"""For operators and load balancers: is the process alive, can it work, and what are its numbers."""

import hmac

from msgspec import Struct
from starlette.responses import Response

from http_api import metrics
from http_api.machine_numbers import MachineNumbers
from http_api.readiness import Readiness
from http_api.rest.operation import ANYONE, Answer, Call, Operation, operation
from http_api.rest.problems import RETRY_AFTER_S, problem
from infra.loops import dying_loops


class Health(Struct):
    status: str


def operations(readiness: Readiness, numbers: MachineNumbers, metrics_token: str | None) -> list[Operation]:
    """Return this module's part of the table. ``metrics_token``: who may read the numbers, ``None`` for everybody."""

    @operation("GET", "/healthz", roles=ANYONE, answers={200: Health})
    async def healthz(_call: Call) -> Health:
        """Tell that the process is alive."""
        return Health("ok")

    @operation("GET", "/readyz", roles=ANYONE, answers={200: Health}, problems=("unavailable",))
    async def readyz(_call: Call) -> Health | Response:
        """Tell whether this node can work: SQL and Redis can be written, and no loop keeps dying; 503 names what is not so.

        The answer comes within two seconds. Those who ask within the same half second share one.
        """
        missing, dying = await readiness.missing(), dying_loops()
        if missing or dying:
            sentences = [f"Cannot be written: {', '.join(missing)}."] if missing else []
            sentences += [f"Ended by a bug again and again: {', '.join(dying)}."] if dying else []
            detail = " ".join(sentences)
            return problem("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
        return Health("ok")

    @operation(
        "GET",
        "/metrics",
        roles=ANYONE,
        answers={200: str},
        problems=("unauthenticated",) if metrics_token is not None else (),
        media_type=metrics.CONTENT_TYPE,
    )
    async def read_metrics(call: Call) -> Answer | Response:
        """Give the numbers of this machine, of all its server processes together, in Prometheus' text format.

        With `PITLANE_METRICS_TOKEN` only to who sends it as a bearer token.
        """
        if metrics_token is not None:
            scheme, _, sent = call.headers.get("authorization", "").partition(" ")
            is_right = hmac.compare_digest(sent.strip().encode(), metrics_token.encode())
            if scheme.lower() != "bearer" or not is_right:
                return problem("unauthenticated", "The numbers are for who has PITLANE_METRICS_TOKEN.")
        return Answer(200, numbers.exposition())

    return [healthz, readyz, read_metrics]
