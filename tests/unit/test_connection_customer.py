"""A customer's socket, as a dialogue."""

import anyio
import pytest

from dispatch.deliveries import FrameToCustomer, PageWanted, Told
from http_api.sockets import close_codes
from http_api.sockets.customer import ASKED_MAX
from tests.unit.connection_stage import NOW, NOW_MS, a_request, a_status, an_update, stage


async def test_the_welcome_has_the_open_requests():
    async with stage() as here:
        here.dispatch.requests.append(a_request("r1"))
        page = here.open_customer("doe")
        await here.settled()
        (welcome,) = page.hears()
        assert (welcome["type"], welcome["protocol"], welcome["account_id"]) == ("welcome", 1, "doe")
        assert [request["id"] for request in welcome["requests"]] == ["r1"]
        assert (welcome["server_time"], welcome["heartbeat_interval_s"]) == (NOW, 20)


async def test_a_heartbeat_is_acknowledged_and_is_none_of_presence_business():
    async with stage() as here:
        page = await here.customer("doe")
        page.says("heartbeat")
        assert page.hears() == [{"type": "heartbeat_ack", "server_time": NOW}]
        assert here.presence.said == []


async def test_watching_gives_the_status_now_and_at_every_change():
    async with stage() as here:
        here.presence.known["mike"] = a_status("mike", version=3)
        page = await here.customer("doe")
        page.says("watch", mechanic_ids=["mike"])
        await here.settled()
        (now,) = page.hears()
        assert (now["type"], now["mechanic_id"], now["version"]) == ("status", "mike", 3)
        assert set(now) == {"type", *a_status("mike").__struct_fields__}

        (sink,) = here.presence.sinks
        sink(a_status("mike", version=4))
        assert [status["version"] for status in page.hears()] == [4]

        page.says("unwatch", mechanic_ids=["mike", "nobody"])
        sink(a_status("mike", version=5))
        await here.settled()
        assert page.hears() == []
        assert here.presence.sinks[sink] == set()


async def test_a_change_is_framed_once_for_all_who_watch():
    async with stage() as here:
        here.presence.known["mike"] = a_status("mike", version=3)
        pages = [await here.customer(one) for one in ("doe", "roe", "poe")]
        for page in pages:
            page.says("watch", mechanic_ids=["mike"])
        await here.settled()
        for version in (4, 5):
            change = a_status("mike", version=version)
            for sink in here.presence.sinks:
                sink(change)
        for page in pages:
            assert [status["version"] for status in page.hears()] == [3, 4, 5]
        assert len({id(page.frames[-1]) for page in pages}) == 1
        assert len({id(page.frames[-2]) for page in pages}) == 1


async def test_watching_adds_to_what_is_watched_and_twice_is_once():
    async with stage() as here:
        here.presence.known |= {one: a_status(one) for one in ("a", "b")}
        page = await here.customer("doe")
        page.says("watch", mechanic_ids=["a"])
        page.says("watch", mechanic_ids=["a", "b", "b"])
        await here.settled()
        assert [status["mechanic_id"] for status in page.hears()] == ["a", "b"]


async def test_a_watch_of_many_is_answered_by_one_frame_and_each_change_by_its_own():
    async with stage() as here:
        ids = [f"m{number}" for number in range(100)]
        here.presence.known |= {one: a_status(one, version=3) for one in ids}
        page = await here.customer("doe")
        page.says("watch", mechanic_ids=ids)
        await here.settled()
        (answer,) = page.hears()
        assert answer["type"] == "statuses"
        assert [status["mechanic_id"] for status in answer["statuses"]] == ids
        assert set(answer["statuses"][0]) == set(a_status("m0").__struct_fields__)

        (sink,) = here.presence.sinks
        sink(a_status("m7", version=4))
        (change,) = page.hears()
        assert (change["type"], change["mechanic_id"], change["version"]) == ("status", "m7", 4)


async def test_what_changes_while_a_watch_is_answered_is_told_once_and_in_its_newest_form():
    # Interleaving: watch -> a snapshot of m1 -> m1 changes, and m2 is no longer watched -> the rest of the snapshots.
    async with stage() as here:
        here.presence.known |= {one: a_status(one) for one in ("m1", "m2", "m3", "other")}
        page = await here.customer("doe")
        page.says("watch", mechanic_ids=["other"])
        await here.settled()
        page.hears()
        here.presence.gate = anyio.Event()
        page.says("watch", mechanic_ids=["m1", "m2", "m3"])
        await here.settled()
        (sink,) = here.presence.sinks
        sink(a_status("m1", version=2))
        page.says("unwatch", mechanic_ids=["m2"])
        sink(a_status("other", version=5))
        (meanwhile,) = page.hears()
        assert (meanwhile["type"], meanwhile["mechanic_id"]) == ("status", "other")
        here.presence.gate.set()
        await here.settled()
        (answer,) = page.hears()
        assert [(one["mechanic_id"], one["version"]) for one in answer["statuses"]] == [("m1", 2), ("m3", 1)]


async def test_nobody_can_watch_who_is_no_mechanic():
    async with stage() as here:
        here.presence.known["mike"] = a_status("mike")
        page = await here.customer("doe")
        page.says("watch", mechanic_ids=["ghost", "mike"])
        await here.settled()
        status, error = page.hears()
        assert status["mechanic_id"] == "mike"
        assert (error["code"], error["ref"]) == ("mechanic_not_found", "ghost")
        assert list(here.presence.sinks.values()) == [{"mike"}]


@pytest.mark.parametrize("asked", [101, 40])
async def test_more_than_a_hundred_are_too_many_and_the_earlier_ones_stay(asked):
    async with stage() as here:
        ids = [f"m{number}" for number in range(202)]
        here.presence.known |= {one: a_status(one) for one in ids}
        page = await here.customer("doe")
        if asked == 40:
            page.says("watch", mechanic_ids=ids[:40])
            page.says("watch", mechanic_ids=ids[40:80])
        page.says("watch", mechanic_ids=ids[80 : 80 + asked])
        await here.settled()
        told = page.hears()
        assert [message["type"] for message in told].count("error") == 1
        statuses = [status for message in told if message["type"] == "statuses" for status in message["statuses"]]
        assert len(statuses) == (80 if asked == 40 else 0)
        watched = next(iter(here.presence.sinks.values()), set())
        assert watched == (set(ids[:80]) if asked == 40 else set())


async def test_too_many_is_said_in_the_same_word_whichever_way():
    async with stage() as here:
        page = await here.customer("doe")
        page.says("watch", mechanic_ids=["m"] * 101)
        (error,) = page.hears()
        assert error["code"] == "too_many_watched"


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ("null", "null"),
        ("7", "a number"),
        ("-1.5e300", "a number"),
        ("[]", "a list"),
        ('[{"type": "heartbeat"}]', "a list"),
        ('"watch"', "a string"),
        ("true", "a boolean"),
    ],
)
@pytest.mark.parametrize("role", ["mechanic", "customer"])
async def test_a_frame_that_is_no_object_is_told_so_and_the_socket_stays_open(role: str, frame: str, kind: str):
    async with stage() as here:
        client = await (here.mechanic("mike") if role == "mechanic" else here.customer("doe"))
        client.says_raw(frame)
        client.says("heartbeat")
        error, answer = client.hears()
        assert (error["code"], answer["type"]) == ("invalid_message", "heartbeat_ack")
        assert (
            error["message"]
            == f'A message is one JSON object with a `type`, such as {{"type": "heartbeat"}}; this was {kind}.'
        )


async def test_a_closed_socket_is_forgotten_by_presence_even_if_its_watch_was_under_way():
    # Interleaving: watch is asked for -> the socket closes -> the watch would have been made.
    async with stage() as here:
        here.presence.known["mike"] = a_status("mike")
        page = await here.customer("doe")
        page.says("watch", mechanic_ids=["mike"])
        page.hangs_up()
        await here.settled()
        assert here.presence.sinks == {}

        page = await here.customer("doe")
        page.says("watch", mechanic_ids=["mike"])
        await here.settled()
        page.hangs_up()
        await here.settled()
        assert here.presence.sinks == {}


async def test_every_page_of_a_customer_hears_of_their_request_and_nobody_else():
    async with stage() as here:
        laptop, phone, other = await here.customer("doe"), await here.customer("doe"), await here.customer("roe")
        await here.tell(FrameToCustomer("doe", an_update()))
        assert (laptop.hears_kinds(), phone.hears_kinds(), other.hears()) == (
            ["request_update"],
            ["request_update"],
            [],
        )


async def test_an_update_that_comes_before_the_welcome_follows_it():
    async with stage() as here:
        here.dispatch.snapshot_gate = anyio.Event()
        page = here.open_customer("doe")
        await here.settled()
        await here.tell(FrameToCustomer("doe", an_update()))
        assert page.hears() == []
        here.dispatch.snapshot_gate.set()
        await here.settled()
        assert page.hears_kinds() == ["welcome", "request_update"]


@pytest.mark.parametrize(
    ("version", "read_at_ms", "says"), [(3, NOW_MS, [3, 9]), (9, NOW_MS, [9]), (3, NOW_MS + 60_000, [3])]
)
async def test_what_was_read_before_the_welcome_and_is_told_after_it_is_followed_by_the_truth(
    version, read_at_ms, says
):
    # Interleaving: a node reads an open request and stops for a while -> the request ends, and that is told by another -> a
    # page connects, and its welcome does not name the request -> the first node tells what it had read.
    async with stage() as here:
        page = await here.customer("doe")
        here.dispatch.requests = [a_request("r1", version=9)]
        told = Told("r1", version, read_at_ms)
        await here.tell(FrameToCustomer("doe", an_update(a_request("r1", version=version)), told))
        assert [message["request"]["version"] for message in page.hears()] == says


async def test_a_customer_who_misses_too_much_before_the_welcome_is_sent_to_connect_again():
    async with stage() as here:
        here.dispatch.snapshot_gate = anyio.Event()
        page = here.open_customer("doe")
        await here.settled()
        for _ in range(1_000):
            await here.tell(FrameToCustomer("doe", an_update()))
        here.dispatch.snapshot_gate.set()
        await here.settled()
        assert page.closed_with == close_codes.TRY_LATER
        assert page.hears() == []


async def test_after_a_gap_the_open_requests_are_sent_again():
    async with stage() as here:
        page = await here.customer("doe")
        here.dispatch.requests = [a_request("r1", version=9)]
        here.bus.miss_something()
        await here.settled()
        (update,) = page.hears()
        assert update["request"]["version"] == 9


async def test_a_delivery_that_nobody_understands_does_no_harm():
    async with stage() as here:
        page = await here.customer("doe")
        for handler in here.bus.handlers:
            handler('{"type": "from another version"}')
        await here.tell(FrameToCustomer("doe", an_update()))
        assert page.hears_kinds() == ["request_update"]


# --- is a page open? --------------------------------------------------------------------------------------------------


async def test_a_page_answers_whether_it_is_open_when_it_is_heard_and_only_then():
    async with stage() as here:
        awake, asleep = await here.customer("carla"), await here.customer("carl")
        for who in ("carla", "carl", "nobody"):
            await here.tell(PageWanted(who, f"request_update-{who}-2"))
        assert (awake.pings, asleep.pings) == (1, 1)
        assert here.pages.answered == []
        awake.connection.on_alive()
        awake.connection.on_alive()
        await here.settled()
        assert here.pages.answered == ["request_update-carla-2"]


async def test_questions_that_a_page_does_not_answer_do_not_pile_up():
    async with stage() as here:
        page = await here.customer("carla")
        for number in range(ASKED_MAX + 5):
            await here.tell(PageWanted("carla", str(number)))
        page.connection.on_alive()
        await here.settled()
        assert here.pages.answered == [str(number) for number in range(5, ASKED_MAX + 5)]
