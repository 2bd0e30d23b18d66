"""What the client's README shows is what works: its example, run as it stands against a real server."""

import re
from pathlib import Path

import anyio

from http_api.pages.serving import CLIENT
from models import tables
from tests.acceptance.clients import token_for
from tests.acceptance.servers import running_servers
from tests.acceptance.town import new_town
from tests.deno_program import AS_IT_STANDS, deno, deno_environment

PATIENCE_S = 60.0


async def test_the_example_takes_the_first_request_and_says_so(tmp_path: Path) -> None:
    [example] = re.findall(r"```js\n(.*?)```", (CLIENT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert "./pitlane.js" in example
    file = tmp_path / "example.js"
    file.write_text(example.replace("./pitlane.js", (CLIENT / "pitlane.js").as_uri()), encoding="utf-8")
    with running_servers(tmp_path) as [server]:
        await server.ready()
        async with new_town(f"sqlite:///{tmp_path}/pitlane.sqlite3") as town:
            request_id = await town.paid(server, favorite=town.john)
            with anyio.fail_after(PATIENCE_S):
                ran = await anyio.run_process(
                    deno("run", *AS_IT_STANDS, "--allow-env", file),
                    env=deno_environment(
                        tmp_path / "deno",
                        PITLANE_URL=server.base_url,
                        PITLANE_TOKEN=token_for(town.john, "mechanic"),
                    ),
                    stderr=None,
                )
            [request] = await town.rows(tables.SessionRequest, id=request_id)
    assert ran.stdout.decode().splitlines() == [
        "connecting",
        "live",
        "John Doe asks for 10 minutes",
        "you have John Doe",
        "closed",
    ]
    assert (request.status, request.assigned_mechanic_id) == ("accepted", town.john)
