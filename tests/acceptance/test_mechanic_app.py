"""The mechanic's app without its page: installed, without a connection, and woken by push messages that are answered at once."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, CDPSession, Worker, expect

from http_api.pages.kept import FILES, worker
from http_api.pages.serving import BROWSER
from tests.acceptance.bay import ON_A_PHONE, Bay, Workshop, no_violations, open_bay, running_workshop
from tests.acceptance.browser import Visitor
from tests.parts import eventually

ALLOWED = {"permissions": ["notifications"]}
SUBSCRIBES = """
PushManager.prototype.subscribe = async function (options) {
  const p256dh = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
  const endpoint = "https://push.example.com/" + location.host.replace(":", "-");
  const json = {endpoint, keys: {p256dh, auth: "BTBZMqHH6r4Tts7J_aSIgg"}, expirationTime: null};
  const own = {endpoint, options, toJSON: () => json, unsubscribe: async () => { window.own = null; return true; }};
  PushManager.prototype.getSubscription = async () => window.own;
  return (window.own = own);
};
PushManager.prototype.getSubscription = async () => null;
"""
"""There is no push service behind this Chromium. The keys are those of an example in RFC 8291."""
CLICK = """
([tag, action]) => new Promise(async (resolve) => {
  const [notification] = await registration.getNotifications({tag});
  const event = new NotificationEvent("notificationclick", {notification, action});
  // What a script sends is not waited for by the browser.
  Object.defineProperty(event, "waitUntil", {value: (work) => work.then(() => resolve("done"), (error) => resolve(String(error)))});
  self.opened = [];
  WindowClient.prototype.focus = async function () { self.opened.push("focus " + new URL(this.url).pathname); return this; };
  clients.openWindow = async (url) => { self.opened.push("open " + url); return null; };
  self.dispatchEvent(event);
})
"""
COUNTS_SHOWN = """
void (() => {
  const show = ServiceWorkerRegistration.prototype.showNotification;
  self.shownSoFar = 0;
  ServiceWorkerRegistration.prototype.showNotification = async function (...what) {
    await show.apply(this, what);
    self.shownSoFar += 1;
  };
})()
"""
LOOKS_AT_SHOWN = """
navigator.serviceWorker.getRegistration("/mechanic").then((one) => one.getNotifications()).then(() => undefined)
"""
"""This Chromium forgets a notification that is asked for while it is still being shown: so nobody asks then. The page's own
question is answered before this one."""
KEPT = """
caches.keys().then((names) => Promise.all(names.map(async (name) => {
  const cache = await caches.open(name);
  return (await cache.keys()).map(({url}) => url);
})))
"""
SHOWN = """
async () => (await registration.getNotifications()).map(({title, body, tag, actions, silent, requireInteraction}) =>
  ({title, body, tag, actions: actions.map(({action}) => action), silent, requireInteraction}))
"""


CHANGES_ADDRESS = """
([before, after]) => new Promise((resolve) => {
  const event = new Event("pushsubscriptionchange");
  event.oldSubscription = before && {endpoint: before};
  const keys = {
    p256dh: "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    auth: "BTBZMqHH6r4Tts7J_aSIgg",
  };
  event.newSubscription = {endpoint: after, toJSON: () => ({endpoint: after, keys, expirationTime: null})};
  Object.defineProperty(event, "waitUntil", {value: (work) => work.then(() => resolve("done"), (error) => resolve(String(error)))});
  self.dispatchEvent(event);
})
"""
"""What a browser says to the worker when its push service has moved it; nothing makes this one say it."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with running_workshop(tmp_path_factory.mktemp("workshop")) as one:
        yield one


@pytest_asyncio.fixture
async def bay(browser: Browser, workshop: Workshop) -> AsyncIterator[Bay]:
    async with open_bay(browser, workshop) as one:
        yield one


class Phone:
    """John's app, and its worker: what is pushed to it, what it shows, and what is touched there."""

    def __init__(self, app: Visitor, worker: Worker, devtools: CDPSession, registration_id: str, origin: str) -> None:
        """``origin``: the app's, also for pushes that come when its page shows something else."""
        self.app = app
        self.worker = worker
        self._origin = origin
        self._devtools = devtools
        self._registration_id = registration_id

    @classmethod
    async def of(cls, app: Visitor) -> "Phone":
        context = app.page.context
        running = context.service_workers
        one = running[0] if running else await context.wait_for_event("serviceworker")
        await app.page.evaluate("navigator.serviceWorker.ready.then(() => undefined)")
        devtools = await context.new_cdp_session(app.page)
        seen: list[str] = []
        devtools.on(
            "ServiceWorker.workerRegistrationUpdated",
            lambda event: seen.extend(known["registrationId"] for known in event["registrations"]),
        )
        await devtools.send("ServiceWorker.enable")
        await eventually(lambda: seen, "the worker is registered")
        await one.evaluate(COUNTS_SHOWN)
        return cls(app, one, devtools, seen[-1], await app.page.evaluate("location.origin"))

    async def push(self, message: object) -> None:
        await self.push_text(json.dumps(message))

    async def push_text(self, data: str) -> None:
        """Push, and wait until the worker has shown what it shows of it."""
        before = await self.worker.evaluate("self.shownSoFar")
        await self._devtools.send(
            "ServiceWorker.deliverPushMessage",
            {"origin": self._origin, "registrationId": self._registration_id, "data": data},
        )

        async def has_shown() -> bool:
            return await self.worker.evaluate("self.shownSoFar") > before

        await eventually(has_shown, "the worker has shown it")

    async def shown(self) -> list[dict[str, Any]]:
        return await self.worker.evaluate(SHOWN)

    async def shows(self, title: str) -> dict[str, Any]:
        """Wait for the notification with this title."""

        async def found() -> list[dict[str, Any]]:
            return [one for one in await self.shown() if one["title"] == title]

        return (await eventually(found, f"shows {title!r}"))[0]

    async def shows_nothing(self) -> None:
        async def nothing() -> bool:
            return await self.shown() == []

        await eventually(nothing, "nothing is shown")

    async def touch(self, tag: str, action: str = "") -> list[str]:
        """Touch a notification, or a button on it; return which windows that opened."""
        assert await self.worker.evaluate(CLICK, [tag, action]) == "done"
        return await self.worker.evaluate("self.opened")


async def offer_of(bay: Bay) -> dict[str, Any]:
    """Return the offer that John has now, as the server tells it."""
    async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
        (offer,) = (await john.ok("GET", "/api/offers"))["offers"]
    return offer


async def pushed(bay: Bay, phone: Phone, *, stays_open: bool = False) -> tuple[str, str]:
    """Push a priority offer, and leave the app unless it stays open; return the tag of its notification and the request's id."""
    request_id = await bay.offered(to_john=True)
    offer = await offer_of(bay)
    # An open page takes away what it knows nothing of.
    await expect(phone.app.part("offer-card", offer_id=offer["offer_id"])).to_have_count(1)
    await phone.app.page.evaluate(LOOKS_AT_SHOWN)
    await phone.push({"type": "offer", "offer": offer})
    await phone.shows("John Doe asks for you")
    if not stays_open:
        await phone.app.page.goto("about:blank")
    return f"offer:{offer['offer_id']}", request_id


# --- installing -------------------------------------------------------------------------------------------------------


async def test_the_browser_finds_nothing_that_keeps_the_app_from_being_installed(bay: Bay) -> None:
    async with bay.app() as john:
        devtools = await john.page.context.new_cdp_session(john.page)
        manifest = await devtools.send("Page.getAppManifest")
        assert manifest["errors"] == []
        assert manifest["url"].endswith("/static/manifest.webmanifest")
        kept = json.loads(manifest["data"])
        assert (kept["id"], kept["start_url"], kept["scope"]) == ("/mechanic", "/mechanic", "/mechanic")
        icons = await john.page.evaluate(
            """(icons) => Promise.all(icons.map(async ({src}) => { const icon = new Image(); icon.src = src; await icon.decode();
                return `${icon.naturalWidth}x${icon.naturalHeight}`; }))""",
            kept["icons"],
        )
        assert icons == [icon["sizes"] for icon in kept["icons"]]
        found = (await devtools.send("Page.getInstallabilityErrors"))["installabilityErrors"]
        # This browser is one that keeps nothing, which is not the app's doing.
        assert [error["errorId"] for error in found if error["errorId"] != "in-incognito"] == []
        assert john.errors == []


def test_the_worker_is_another_one_when_anything_that_it_keeps_is(tmp_path: Path) -> None:
    for name in (*FILES, "worker.js"):
        (tmp_path / name).write_bytes((BROWSER / name).read_bytes())
    before = worker(tmp_path)
    assert '"/static/offline.html"' in before
    with (tmp_path / FILES[0]).open("a") as file:
        file.write(" ")
    assert worker(tmp_path) != before


# --- without a connection ---------------------------------------------------------------------------------------------


async def test_without_a_connection_the_app_says_so_and_opens_again_when_there_is_one(bay: Bay) -> None:
    async with bay.app() as john:
        await Phone.of(john)
        in_charge = "navigator.serviceWorker.controller !== null"
        await eventually(lambda: john.page.evaluate(in_charge), "the worker is in charge")
        await john.page.context.set_offline(True)
        await john.page.reload()
        await expect(john.page.get_by_role("heading", name="No connection")).to_be_visible()
        await no_violations(john)
        await john.page.get_by_role("button", name="Try now").click()
        await expect(john.page.get_by_role("heading", name="No connection")).to_be_visible()
        # The page asks by itself, too, slower and slower.
        await john.page.context.set_offline(False)
        await expect(john.part("duty-switch")).to_be_visible(timeout=30_000)
        # Nothing of the app is kept: what is shown is the server's.
        (urls,) = await john.page.evaluate(KEPT)
        assert sorted(url.rsplit("/", 1)[1] for url in urls) == sorted(FILES)


# --- pushed -----------------------------------------------------------------------------------------------------------


async def test_an_offer_is_accepted_on_its_notification(bay: Bay) -> None:
    async with bay.app(**ALLOWED) as john:
        phone = await Phone.of(john)
        tag, request_id = await pushed(bay, phone)
        notification = await phone.shows("John Doe asks for you")
        assert notification["actions"] == ["accept", "decline"]
        assert notification["requireInteraction"]
        assert "10 min text" in notification["body"]
        assert await phone.touch(tag, "accept") == []
        outcome = await phone.shows("You have John Doe's session")
        assert (outcome["tag"], len(await phone.shown())) == (tag, 1)
        assert await bay.status(request_id) == "accepted"


async def test_an_offer_is_declined_on_its_notification_and_the_notification_goes_by_itself(bay: Bay) -> None:
    async with bay.app(**ALLOWED) as john:
        phone = await Phone.of(john)
        tag, request_id = await pushed(bay, phone)
        assert await phone.touch(tag, "decline") == []
        assert (await phone.shows("Declined"))["silent"]
        await bay.tells(request_id, "declined")
        await phone.shows_nothing()


async def test_an_accept_that_comes_too_late_says_so(bay: Bay) -> None:
    async with bay.app(**ALLOWED) as john:
        phone = await Phone.of(john)
        tag, request_id = await pushed(bay, phone)
        await bay.town.cancelled(bay.server, request_id)
        await phone.touch(tag, "accept")
        assert (await phone.shows("Too late: this offer has ended"))["actions"] == []


async def test_an_answer_after_the_session_has_ended_asks_to_sign_in(bay: Bay) -> None:
    async with bay.app(**ALLOWED) as john:
        phone = await Phone.of(john)
        tag, request_id = await pushed(bay, phone)
        await john.page.context.clear_cookies()
        await phone.touch(tag, "accept")
        await phone.shows("Sign in to answer")
        assert await bay.status(request_id) == "priority_offered"


async def test_an_answer_that_does_not_arrive_may_be_given_again(bay: Bay) -> None:
    async with bay.app(**ALLOWED) as john:
        phone = await Phone.of(john)
        tag, request_id = await pushed(bay, phone)
        await phone.worker.evaluate(
            "void (self.real = fetch, self.fetch = async () => { throw new TypeError('no network'); })"
        )
        await phone.touch(tag, "accept")
        assert (await phone.shows("Not accepted yet"))["actions"] == ["accept", "decline"]
        await phone.worker.evaluate("void (self.fetch = self.real)")
        await phone.touch(tag, "accept")
        await phone.shows("You have John Doe's session")
        assert await bay.status(request_id) == "accepted"


async def test_a_touched_notification_brings_the_app_to_its_offer(bay: Bay) -> None:
    async with bay.app(path="/mechanic#settings", **ALLOWED) as john:
        phone = await Phone.of(john)
        tag, _ = await pushed(bay, phone, stays_open=True)
        assert await phone.touch(tag) == ["focus /mechanic"]
        await expect(john.part("offer-card")).to_be_focused()
        await john.page.goto("about:blank")
        await phone.push({"type": "offer", "offer": await offer_of(bay)})
        await phone.shows("John Doe asks for you")
        (opened,) = await phone.touch(tag)
        await john.page.goto(opened.removeprefix("open "))
        await expect(john.part("offer-card")).to_be_focused()


async def test_an_offer_that_has_ended_replaces_its_notification_quietly_and_briefly(bay: Bay) -> None:
    async with bay.app(**ALLOWED) as john:
        phone = await Phone.of(john)
        tag, _ = await pushed(bay, phone)
        await phone.push({"type": "offer_withdrawn", "offer_id": tag.removeprefix("offer:"), "reason": "taken"})
        ended = await phone.shows("This offer has ended")
        assert (ended["tag"], ended["silent"], ended["actions"], ended["requireInteraction"]) == (tag, True, [], False)
        assert len(await phone.shown()) == 1
        await phone.shows_nothing()


async def test_opened_the_app_takes_away_notifications_of_offers_that_have_ended(bay: Bay) -> None:
    async with bay.app(**ALLOWED) as john:
        phone = await Phone.of(john)
        tag, request_id = await pushed(bay, phone)
        await bay.town.cancelled(bay.server, request_id)
        assert [one["tag"] for one in await phone.shown()] == [tag]
        await john.page.goto("/mechanic")
        await phone.shows_nothing()


async def test_news_of_their_session_is_shown_and_opens_the_app(bay: Bay) -> None:
    async with bay.app(**ALLOWED) as john:
        phone = await Phone.of(john)
        request_id = await bay.offered(to_john=True)
        async with bay.town.as_mechanic(bay.server, bay.town.john) as rest:
            offer = await offer_of(bay)
            (accepted,) = (await rest.ok("POST", f"/api/offers/{offer['offer_id']}/accept")).values()
        await phone.push({"type": "request_update", "request": accepted})
        shown = await phone.shows("You have John Doe's session")
        assert (shown["tag"], shown["actions"]) == (f"request:{request_id}", [])
        await phone.push({"type": "request_update", "request": accepted | {"status": "cancelled"}})
        assert (await phone.shows("John Doe cancelled"))["tag"] == shown["tag"]
        assert await phone.touch(shown["tag"]) == ["focus /mechanic"]


async def test_a_browser_that_gets_another_address_tells_the_server_while_no_page_is_open(bay: Bay) -> None:
    async with bay.app(**ALLOWED) as john, bay.town.as_mechanic(bay.server, bay.town.john) as rest:
        phone = await Phone.of(john)
        await john.page.goto("about:blank")

        async def hosts() -> list[str]:
            found = (await rest.ok("GET", "/api/push/subscriptions"))["subscriptions"]
            return [one["endpoint_host"] for one in found]

        before, after = "https://one.example.com/a", "https://two.example.com/b"
        assert await phone.worker.evaluate(CHANGES_ADDRESS, [None, before]) == "done"
        assert await hosts() == ["one.example.com"]
        assert await phone.worker.evaluate(CHANGES_ADDRESS, [before, after]) == "done"
        assert await hosts() == ["two.example.com"]


@pytest.mark.parametrize("data", ["", "no json", "null", '{"type": "of a newer server"}'])
async def test_whatever_is_pushed_something_is_shown(bay: Bay, data: str) -> None:
    async with bay.app(**ALLOWED) as john:
        phone = await Phone.of(john)
        await phone.push_text(data)
        await phone.shows("News on Pitlane")
        await phone.push({"type": "test"})
        await phone.shows("Notifications work")


# --- turning it on ----------------------------------------------------------------------------------------------------


async def test_notifications_are_turned_on_by_a_click_and_the_device_is_listed_until_it_is_removed(bay: Bay) -> None:
    async with bay.app(SUBSCRIBES, path="/mechanic#settings", **ON_A_PHONE, **ALLOWED) as john:
        await expect(john.part("push-state")).to_have_text("Notifications are off")
        await expect(john.part("push-device")).to_have_count(0)
        await john.part("push-on").click()
        await expect(john.part("push-state")).to_have_text("Notifications are on")
        await expect(john.part("push-device")).to_contain_text("(this device)")
        await no_violations(john)
        await john.part("push-device").get_by_role("button").click()
        await expect(john.part("push-state")).to_have_text("Notifications are off")
        await expect(john.part("push-device")).to_have_count(0)
        assert john.errors == []


async def test_who_signs_out_is_not_notified_on_this_device_any_more(bay: Bay) -> None:
    async with bay.app(SUBSCRIBES, path="/mechanic#settings", **ALLOWED) as john:
        await john.part("push-on").click()
        await expect(john.part("push-device")).to_have_count(1)
        await john.part("sign-out").click()
        await expect(john.page.locator("sign-in")).to_be_visible()
        async with bay.town.as_mechanic(bay.server, bay.town.john) as rest:
            assert (await rest.ok("GET", "/api/push/subscriptions"))["subscriptions"] == []


async def test_a_blocked_browser_is_told_how_to_unblock_and_never_asked_unbidden(bay: Bay) -> None:
    asked = "window.asked = 0; Notification.requestPermission = async () => (window.asked += 1, 'denied');"
    blocked = "Object.defineProperty(Notification, 'permission', {get: () => window.asked ? 'denied' : 'default'});"
    async with bay.app(asked, blocked, path="/mechanic#settings") as john:
        await expect(john.part("push-state")).to_have_text("Notifications are off")
        assert await john.page.evaluate("window.asked") == 0
        await john.part("push-on").click()
        await expect(john.part("push-state")).to_have_text("Notifications are blocked")
        await expect(john.page.locator("push-settings")).to_contain_text("allow them, and come back")


async def test_what_a_mechanic_takes_is_chosen_by_switches(bay: Bay) -> None:
    async with bay.app(path="/mechanic#settings") as john, bay.town.as_mechanic(bay.server, bay.town.john) as rest:
        await john.part("takes-text").click()
        await expect(john.page.locator("#toast")).to_have_text("Saved.")
        kept = await rest.ok("GET", "/api/me/preferences")
        assert (kept["session_types"], kept["push_broadcasts"]) == (["diagnostic", "video"], False)
        await john.part("push-broadcasts").click()

        async def wakes() -> bool:
            return (await rest.ok("GET", "/api/me/preferences"))["push_broadcasts"]

        await eventually(wakes, "open requests may wake them")
        for kind in ("takes-video", "takes-diagnostic"):
            await john.part(kind).click()
        await expect(john.part("preferences-problem")).to_contain_text("At least one kind stays on")
        await expect(john.part("takes-diagnostic")).to_be_checked()
