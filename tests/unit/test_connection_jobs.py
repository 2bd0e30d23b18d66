"""What a connection has to do in turn: for its client, and because we have caused it."""

import anyio
import pytest

from dispatch.deliveries import FrameToCustomer, Told
from http_api.sockets import close_codes, connection, stale
from tests.unit.connection_stage import NOW_MS, Phone, Stage, a_request, an_update, stage


def keep_busy(phone: Phone) -> anyio.Event:
    """Let the connection's jobs wait until the event that is returned is set."""
    released = anyio.Event()
    phone.connection.submit(released.wait)
    return released


async def tell_of(here: Stage, request_id: str, version: int = 1) -> None:
    """Tell doe of a request as it was read before their welcome."""
    told = Told(request_id, version, NOW_MS - 1_000)
    await here.tell(FrameToCustomer("doe", an_update(a_request(request_id, version=version)), told))


@pytest.mark.bugs_planted
async def test_a_bug_in_bringing_a_socket_up_to_date_sends_it_back_for_a_snapshot():
    async with stage() as here:
        phone = await here.mechanic("mike")
        here.dispatch.is_buggy = True
        here.bus.miss_something()
        await here.settled()
        assert (phone.hears(), phone.closed_with) == ([], close_codes.BUG)


async def test_what_follows_up_the_same_news_is_read_and_said_once():
    async with stage() as here:
        page = await here.customer("doe")
        here.dispatch.requests = [a_request("r1", version=9)]
        released = keep_busy(page)
        for _ in range(5):
            await tell_of(here, "r1")
        released.set()
        await here.settled()
        assert [update["request"]["version"] for update in page.hears()] == [1] * 5 + [9]


async def test_a_socket_that_has_too_much_to_catch_up_with_reads_everything_once_instead(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(connection, "OWN_JOBS_MAX", 3)
    async with stage() as here:
        page = await here.customer("doe")
        here.dispatch.requests = [a_request("r10", version=9)]
        released = keep_busy(page)
        for number in range(20):
            await tell_of(here, f"r{number}")
        assert len(page.hears()) == 20
        released.set()
        await here.settled()
        # Three are followed up, and then all that is there is sent; the request that is newer than what was told is among it.
        assert len(here.dispatch.called("open_requests_of")) == 1 + 3 + 1
        assert [update["request"]["version"] for update in page.hears()] == [9]


async def test_what_we_have_caused_cuts_no_client_off_that_asks_for_little():
    async with stage(jobs_per_connection_max=3) as here:
        page = await here.customer("doe")
        released = keep_busy(page)
        for number in range(20):
            await tell_of(here, f"r{number}")
        page.says("watch", mechanic_ids=["mike"])
        assert page.closed_with is None
        released.set()


async def test_a_socket_that_was_not_read_in_time_is_read_once_when_its_turn_comes(monkeypatch: pytest.MonkeyPatch):
    # Interleaving: after a gap the socket's earlier job takes longer than anybody waits for it -> it is tried again, and again.
    monkeypatch.setattr(stale, "REFRESH_WAIT_S", 0.01)
    monkeypatch.setattr(stale, "AGAIN_AFTER_S", 0.01)
    async with stage() as here:
        page, other = await here.customer("doe"), await here.customer("jane")
        here.dispatch.requests = [a_request("r1", version=9)]
        released = keep_busy(page)
        here.bus.miss_something()
        for _ in range(3):
            other.hears()
            here.hub._stale.mark(other.connection)
            await here.until(lambda: other.messages)
        released.set()
        await here.until(lambda: page.messages)
        await here.settled()
        assert page.hears_kinds() == ["request_update"]
