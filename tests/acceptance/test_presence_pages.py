"""What a mechanic's page does for their presence, in a real browser; and what the browser does without it."""

from datetime import datetime
from pathlib import Path

from playwright.async_api import Browser, WebSocket

from accounts.accounts import NewAccount
from infra.clock import wall_clock_ms
from models.words import Role
from tests.acceptance.browser import Visitor, signed_in
from tests.acceptance.clients import Rest
from tests.acceptance.servers import Server, add_accounts, running_servers
from tests.parts import eventually

PATIENCE_S = 20.0


async def add_two(server: Server, data_dir: Path) -> tuple[str, str]:
    """Return a mechanic and a customer."""
    await server.ready()
    mechanic, customer = await add_accounts(
        f"sqlite:///{data_dir}/pitlane.sqlite3",
        NewAccount(Role.MECHANIC, "john@example.com", "John Smith"),
        NewAccount(Role.CUSTOMER, "driver@example.com", "John Doe"),
    )
    return mechanic, customer


def heartbeats_of(visitor: Visitor) -> list[int]:
    """Return the list to which the instant, ms, of every heartbeat of the page is going to be added."""
    sent: list[int] = []

    def note(frame: str | bytes) -> None:
        if '"heartbeat"' in str(frame):
            sent.append(wall_clock_ms())

    def listen(socket: WebSocket) -> None:
        socket.on("framesent", note)

    visitor.page.on("websocket", listen)
    return sent


async def test_a_page_beats_first_after_a_random_part_of_the_interval(browser: Browser, tmp_path: Path) -> None:
    with running_servers(tmp_path, HEARTBEAT_INTERVAL_S="600", PRESENCE_TIMEOUT_S="1200") as [server]:
        mechanic, _ = await add_two(server, tmp_path)
        async with signed_in(browser, server.base_url, mechanic, "mechanic") as page:
            sent = heartbeats_of(page)
            await page.page.add_init_script("Math.random = () => 0.001")
            await page.page.goto("/mechanic")
            await eventually(lambda: sent, "a heartbeat, ten minutes before the second", within_s=PATIENCE_S)


async def test_a_tab_whose_timers_stand_still_stays_online(browser: Browser, tmp_path: Path) -> None:
    # Browsers throttle hidden tabs, down to no timer at all; but they answer the server's pings without any script.
    timeout_ms = 2_500
    with running_servers(tmp_path, HEARTBEAT_INTERVAL_S="0.5", PRESENCE_TIMEOUT_S="2.5") as [server]:
        mechanic, customer = await add_two(server, tmp_path)
        async with (
            signed_in(browser, server.base_url, mechanic, "mechanic") as page,
            Rest.of(server.base_url, customer, "customer") as rest,
        ):
            sent = heartbeats_of(page)
            await page.page.goto("/mechanic")
            await eventually(lambda: len(sent) > 1, "the page beats", within_s=PATIENCE_S)
            await page.page.evaluate("window.setTimeout = () => 0")

            async def is_heard_without() -> bool:
                status = await rest.ok("GET", f"/api/mechanics/{mechanic}/status")
                heard_at_ms = datetime.fromisoformat(status["last_seen"]).timestamp() * 1000
                return status["is_online"] and heard_at_ms > sent[-1] + 1.5 * timeout_ms

            await eventually(is_heard_without, "heard for long after the last heartbeat", within_s=PATIENCE_S)
