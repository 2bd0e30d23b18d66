"""How the mechanic's app makes itself noticed: what it asks of the browser, heard at the browser's own functions."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.acceptance.bay import ON_A_PHONE, Bay, Workshop, no_violations, open_bay, running_workshop
from tests.acceptance.browser import Visitor
from tests.parts import eventually

SPIES = """
window.asked = [];
const spy = (owner, name, answer) => {
  const real = owner[name];
  owner[name] = function (...given) {
    window.asked.push([name, ...given.filter((one) => typeof one !== "object" || Array.isArray(one))]);
    return answer ? answer(...given) : real.apply(this, given);
  };
};
spy(OscillatorNode.prototype, "start");
spy(Navigator.prototype, "vibrate");
spy(Navigator.prototype, "setAppBadge", async () => undefined);
spy(Navigator.prototype, "clearAppBadge", async () => undefined);
spy(WakeLock.prototype, "request", async () => {
  const release = async () => void window.asked.push(["let go"]);
  return (window.lock = Object.assign(new EventTarget(), {released: false, release}));
});
"""
"""Badges and locks are answered here: a browser without a screen has neither."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with running_workshop(tmp_path_factory.mktemp("workshop")) as one:
        yield one


@pytest_asyncio.fixture
async def bay(browser: Browser, workshop: Workshop) -> AsyncIterator[Bay]:
    async with open_bay(browser, workshop) as one:
        yield one


async def asked(visitor: Visitor, name: str) -> list[Any]:
    """Return what was given to a function of the browser, call by call."""
    calls = await visitor.page.evaluate("window.asked")
    return [given for called, *given in calls if called == name]


async def asked_for(visitor: Visitor, name: str) -> list[Any]:
    """Wait until the function was called."""

    async def calls() -> list[Any]:
        return await asked(visitor, name)

    return await eventually(calls, f"{name} was called")


async def touch(visitor: Visitor) -> None:
    await visitor.page.locator("h2").first.click()


async def test_an_offer_is_heard_felt_and_counted(bay: Bay) -> None:
    async with bay.app(SPIES) as john:
        await touch(john)
        await bay.offered(to_john=True)
        assert len(await asked_for(john, "start")) == 6
        assert await asked_for(john, "vibrate") == [[[250, 120, 250, 120, 500]]]
        assert await asked_for(john, "setAppBadge") == [[1]]
        await expect(john.page).to_have_title("(1) John Doe asks for you - Pitlane for mechanics")
        await john.part("accept").click()
        await asked_for(john, "clearAppBadge")
        await expect(john.page).to_have_title("Pitlane for mechanics")


async def test_who_was_asked_for_by_name_is_called_again_until_they_touch_the_page(bay: Bay) -> None:
    async with bay.app(SPIES) as john:
        await touch(john)
        await john.page.clock.install()
        await bay.offered(to_john=True)
        assert len(await asked_for(john, "vibrate")) == 1
        await john.page.clock.fast_forward(6_000)
        assert len(await asked(john, "vibrate")) == 2
        await touch(john)
        await john.page.clock.fast_forward(60_000)
        assert len(await asked(john, "vibrate")) == 2


async def test_what_is_turned_off_stays_silent_also_after_a_reload(bay: Bay) -> None:
    async with bay.app(SPIES, path="/mechanic#settings") as john:
        for name in ("alert-sound", "alert-vibration"):
            await john.part(name).click()
            await expect(john.part(name)).not_to_be_checked()
        await john.page.reload()
        await expect(john.part("alert-sound")).not_to_be_checked()
        await john.part("tab-offers").click()
        await bay.offered(to_john=True)
        await asked_for(john, "setAppBadge")
        await expect(john.part("offer-card")).to_be_visible()
        assert await asked(john, "start") + await asked(john, "vibrate") == []


async def test_nothing_sounds_before_the_page_was_touched(bay: Bay) -> None:
    async with bay.app(SPIES) as john:
        await bay.offered()
        await asked_for(john, "setAppBadge")
        await expect(john.part("offer-card")).to_be_visible()
        assert await asked(john, "start") + await asked(john, "vibrate") == []
        assert john.errors == []


async def test_the_screen_stays_on_while_on_duty_if_wanted(bay: Bay) -> None:
    async with bay.app(SPIES, path="/mechanic#settings") as john:
        assert await asked(john, "request") == []
        await john.part("alert-awake").click()
        await asked_for(john, "request")
        # A browser lets go of it when the page is hidden; shown again, it is asked for again.
        await john.page.evaluate(
            "window.asked = []; window.lock.released = true; document.dispatchEvent(new Event('visibilitychange'))"
        )
        await asked_for(john, "request")
        await john.part("tab-offers").click()
        await john.part("duty-switch").click()
        await asked_for(john, "let go")


async def test_the_screen_may_go_dark_if_that_was_said_while_the_browser_was_being_asked(bay: Bay) -> None:
    async with bay.app(SPIES, path="/mechanic#settings") as john:
        await john.page.evaluate("""() => {
            const ask = navigator.wakeLock.request;
            const granted = new Promise((grant) => { window.grant = grant; });
            navigator.wakeLock.request = async (kind) => { await granted; return ask(kind); };
        }""")
        await john.part("alert-awake").click()
        await expect(john.part("alert-awake")).to_be_checked()
        await john.part("alert-awake").click()
        await john.page.evaluate("window.grant()")
        await asked_for(john, "let go")


@pytest.mark.parametrize("look", ["light", "dark", "forced"])
async def test_no_state_of_the_app_has_accessibility_violations(bay: Bay, look: str) -> None:
    colours = {"forced_colors": "active"} if look == "forced" else {"color_scheme": look}
    check = partial(no_violations, judge_colours=look != "forced")
    async with bay.app(**ON_A_PHONE, **colours) as john:
        await check(john)
        await bay.offered(to_john=True)
        await bay.offered()
        await expect(john.part("offer-card")).to_have_count(2)
        await settled(john)
        await check(john)
        await john.part("decline").last.click()
        await settled(john)
        await check(john)
        await john.part("accept").first.click()
        await john.part("start").wait_for()
        await settled(john)
        await check(john)
        await john.part("start").click()
        await john.part("complete").click()
        await settled(john)
        await check(john)
        await john.part("confirm-no").click()
        for screen in ("days", "settings"):
            await john.part(f"tab-{screen}").click()
            await check(john)


async def settled(john: Visitor) -> None:
    await expect(john.page.locator("[data-settling]")).to_have_count(0)
