"""Both pages where no socket gets through: they ask by REST, say so quietly, and come back to the socket when it is let."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from accounts.accounts import NewAccount
from models.words import Role
from tests.acceptance.browser import Visitor, signed_in
from tests.acceptance.clients import Rest, pay
from tests.acceptance.servers import add_accounts, running_servers
from tests.lossy_proxy import lossy_proxy
from tests.services import free_port

pytestmark = pytest.mark.timeout(180)

POLLED_MS = 30_000
"""Three handshakes have to fail first; then each poll is at most five seconds away."""


async def wakes_up(visitor: Visitor) -> None:
    """Say what a browser says when the network is back: nobody waits for the next of the seldom tries."""
    await visitor.page.evaluate("window.dispatchEvent(new Event('online'))")


async def test_where_sockets_are_blocked_a_session_is_offered_accepted_and_followed_by_polling(
    browser: Browser, tmp_path: Path
) -> None:
    port = free_port()
    async with lossy_proxy(f"http://127.0.0.1:{port}", seed=1) as proxy:
        proxy.blocks_sockets = True
        with running_servers(tmp_path, PORT=str(port), BASE_URL=proxy.base_url) as [server]:
            await server.ready()
            driver, john = await add_accounts(
                f"sqlite:///{tmp_path}/pitlane.sqlite3",
                NewAccount(Role.CUSTOMER, "driver@example.com", "John Doe"),
                NewAccount(Role.MECHANIC, "john@example.com", "John Smith", provider_type="independent"),
            )
            async with (
                signed_in(browser, proxy.base_url, driver, "customer") as customer,
                signed_in(browser, proxy.base_url, john, "mechanic") as mechanic,
                Rest.of(server.base_url, driver, "customer") as rest,
            ):
                await customer.page.goto("/")
                await mechanic.page.goto("/mechanic")
                for page in (customer, mechanic):
                    word = page.part("connection-state", state="polling")
                    await expect(word).to_have_text("Every few seconds", timeout=POLLED_MS)
                await expect(mechanic.page.locator("#situation")).to_have_text("Offers come every few seconds")
                await expect(mechanic.page.locator("duty-switch")).to_contain_text("Customers see you as offline")
                wanted = {"plan": "quick_chat", "routing_type": "priority_broadcast", "preferred_mechanic_id": john}
                checkout = await rest.ok("POST", "/api/checkout", json=wanted, status=201)
                await pay(checkout["url"])
                await expect(customer.part("tracker", status="priority_offered")).to_be_visible(timeout=POLLED_MS)
                offer = mechanic.part("offer-card", kind="priority")
                await expect(offer).to_contain_text("John Doe", timeout=POLLED_MS)
                await mechanic.picture("polling-offer")
                await offer.locator('[data-testid="accept"]').click()
                await expect(mechanic.part("start")).to_be_visible()
                await expect(offer).to_have_count(0)
                await expect(customer.part("tracker", status="accepted")).to_contain_text(
                    "John Smith", timeout=POLLED_MS
                )

                proxy.blocks_sockets = False
                for page in (customer, mechanic):
                    await wakes_up(page)
                    await expect(page.part("connection-state", state="live")).to_have_text("Live", timeout=POLLED_MS)
                await mechanic.part("start").click()
                await expect(customer.part("tracker", status="in_progress")).to_be_visible()
