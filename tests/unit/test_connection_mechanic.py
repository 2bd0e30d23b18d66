"""A mechanic's socket, as a dialogue."""

from collections.abc import Callable
from time import monotonic

import anyio
import pytest

from dispatch.deliveries import FrameToMechanic, OfferTo, StandingChanged, Withdraw
from dispatch.eligibility import Standing
from http_api.sockets import close_codes, stale
from http_api.sockets.inbox import LATE_AFTER_MS
from http_api.sockets.mechanic import MechanicConnection
from models.timestamps import rfc3339
from tests.unit.connection_stage import EXPIRES_AT_S, NOW, NOW_MS, Stage, a_request, an_offer, an_update, stage


async def test_the_first_message_is_a_welcome_with_everything_that_is_true_now():
    async with stage() as here:
        here.dispatch.offers.append(an_offer("o1"))
        here.dispatch.requests.append(a_request("r9"))
        phone = here.open_mechanic("mike")
        await here.settled()

        (welcome,) = phone.hears()
        assert welcome["type"] == "welcome"
        assert (welcome["protocol"], welcome["mechanic_id"], welcome["server_time"]) == (1, "mike", NOW)
        assert (welcome["heartbeat_interval_s"], welcome["on_duty"]) == (20, True)
        assert [offer["offer_id"] for offer in welcome["offers"]] == ["o1"]
        assert welcome["request"]["id"] == "r9"
        assert welcome["connection_id"] == phone.connection.connection_id


async def test_what_happens_while_the_snapshot_is_read_follows_the_welcome():
    async with stage() as here:
        here.dispatch.snapshot_gate = anyio.Event()
        phone = here.open_mechanic("mike")
        await here.settled()
        await here.offer(an_offer("o1"), to="mike")
        await here.tell(FrameToMechanic("mike", an_update()))
        assert phone.hears() == []

        here.dispatch.snapshot_gate.set()
        await here.settled()
        assert phone.hears_kinds() == ["welcome", "offer", "request_update"]


async def test_an_offer_that_is_in_the_welcome_is_not_sent_a_second_time():
    async with stage() as here:
        here.dispatch.offers.append(an_offer("o1"))
        here.dispatch.snapshot_gate = anyio.Event()
        phone = here.open_mechanic("mike")
        await here.settled()
        await here.offer(an_offer("o1"), to="mike")
        here.dispatch.snapshot_gate.set()
        await here.settled()
        assert phone.hears_kinds() == ["welcome"]


async def test_an_offer_withdrawn_while_the_snapshot_was_read_is_not_in_the_welcome():
    # Interleaving: SQL is read (offer open) -> the offer closes and is withdrawn -> the welcome is written.
    async with stage() as here:
        here.dispatch.offers.append(an_offer("o1"))
        here.dispatch.snapshot_gate = anyio.Event()
        phone = here.open_mechanic("mike")
        await here.settled()
        await here.tell(Withdraw("o1", "taken"))
        here.dispatch.snapshot_gate.set()
        await here.settled()
        (welcome,) = phone.hears()
        assert welcome["offers"] == []


async def test_who_goes_on_duty_while_the_snapshot_is_read_gets_the_offers_after_the_welcome():
    # Interleaving: SQL is read (off duty, no offers) -> on duty from another device -> the welcome is written.
    async with stage() as here:
        here.dispatch.offers.append(an_offer("o1"))
        here.dispatch.snapshot_gate = anyio.Event()
        phone = here.open_mechanic("mike", on_duty=False)
        await here.settled()
        here.dispatch.standings["mike"] = Standing(on_duty=True, is_busy=False)
        await here.tell(StandingChanged("mike", on_duty=True, is_busy=False))
        here.dispatch.snapshot_gate.set()
        await here.settled()
        welcome, offer = phone.hears()
        assert (welcome["on_duty"], welcome["offers"]) == (True, [])
        assert offer["offer"]["offer_id"] == "o1"


async def test_a_change_of_duty_that_was_heard_is_passed_on_as_it_was_heard_and_an_older_one_is_not():
    # What SQL says is not asked for: the news has a version.
    async with stage() as here:
        phone = await here.mechanic("mike")
        await here.tell(StandingChanged("mike", on_duty=False, is_busy=False, version=7, types_off=""))
        await here.settled()
        assert [heard["on_duty"] for heard in phone.hears()] == [False]
        await here.tell(StandingChanged("mike", on_duty=True, is_busy=False, version=6, types_off=""))
        await here.settled()
        assert phone.hears() == []
        await here.tell(StandingChanged("mike", on_duty=True, is_busy=False, version=8, types_off=""))
        await here.settled()
        assert [heard["on_duty"] for heard in phone.hears()] == [True]


async def test_an_older_standing_that_is_heard_during_the_handshake_does_not_beat_the_snapshot():
    # Told late, by a node that has taken it over: SQL is read -> the old news is heard -> the welcome is written.
    async with stage() as here:
        here.dispatch.snapshot_gate = anyio.Event()
        phone = here.open_mechanic("mike")
        here.dispatch.standings["mike"] = Standing(on_duty=True, is_busy=False, version=5)
        await here.settled()
        await here.tell(StandingChanged("mike", on_duty=False, is_busy=False, version=3, types_off=""))
        here.dispatch.snapshot_gate.set()
        await here.settled()
        (welcome,) = phone.hears()
        assert welcome["on_duty"] is True
        await here.offer(an_offer("o1"))
        assert phone.hears_kinds() == ["offer"]


async def test_a_heartbeat_is_acknowledged_and_heard_by_presence():
    async with stage() as here:
        phone = await here.mechanic("mike")
        phone.says("heartbeat", battery=0.7)
        assert phone.hears() == [{"type": "heartbeat_ack", "server_time": NOW}]
        assert here.presence.said == [("joined", "mike"), ("heard", "mike")]

        phone.hangs_up()
        assert here.presence.said[-1] == ("left", "mike")
        assert len(here.hub.mechanics) == 0


@pytest.mark.parametrize(
    ("text", "code", "names"),
    [
        ("{", "malformed_json", ""),
        ('{"type": "heartbeat"} and more', "malformed_json", ""),
        ("[" * 9000, "invalid_message", "deep"),
        ("[" * 8000 + "]" * 8000, "invalid_message", "deep"),
        ('{"type": "heartbeat", "x": ' + "[" * 8000 + "]" * 8000 + "}", "malformed_json", "deep"),
        ('"heartbeat"', "invalid_message", "object"),
        ("{}", "invalid_message", "`type`"),
        ('{"type": 5}', "invalid_message", "`type`"),
        ('{"type": "teleport"}', "unknown_type", "`teleport`"),
        ('{"type": "watch", "mechanic_ids": []}', "unknown_type", "`watch`"),
        ('{"type": "accept"}', "invalid_message", "`offer_id`"),
        ('{"type": "set_availability", "on_duty": "yes"}', "invalid_message", "`on_duty`"),
        ('{"type": "accept", "offer_id": "../etc"}', "invalid_message", "`offer_id`"),
    ],
)
async def test_a_bad_message_gets_an_error_that_names_what_is_wrong_and_the_socket_stays_open(text, code, names):
    async with stage() as here:
        phone = await here.mechanic("mike")
        phone.says_raw(text)
        (error,) = phone.hears()
        assert (error["type"], error["code"]) == ("error", code)
        assert names in error["message"]

        phone.says("heartbeat")
        assert phone.hears_kinds() == ["heartbeat_ack"]


async def test_an_error_about_an_offer_says_which():
    async with stage() as here:
        phone = await here.mechanic("mike")
        phone.says("decline", offer_id="o1", reason=5)
        (error,) = phone.hears()
        assert error["ref"] == "o1"


# --- duty -------------------------------------------------------------------------------------------------------------


async def test_going_on_duty_is_answered_and_brings_the_open_offers():
    async with stage() as here:
        here.dispatch.offers.append(an_offer("o1"))
        phone = await here.mechanic("mike", on_duty=False)
        phone.says("set_availability", on_duty=True)
        await here.settled()
        answer, offer = phone.hears()
        assert answer == {"type": "availability", "on_duty": True, "availability": "available"}
        assert offer["offer"]["offer_id"] == "o1"


async def test_true_then_false_in_one_breath_ends_off_duty():
    async with stage() as here:
        phone = await here.mechanic("mike", on_duty=False)
        phone.says("set_availability", on_duty=True)
        phone.says("set_availability", on_duty=False)
        await here.settled()
        assert [answer["on_duty"] for answer in phone.hears()] == [True, False]
        assert here.dispatch.standings["mike"].on_duty is False


async def test_news_older_than_the_own_change_makes_nobody_flicker():
    # Interleaving: off duty is committed and answered -> the news of having gone on duty before that arrives.
    async with stage() as here:
        phone = await here.mechanic("mike", on_duty=False)
        await here.tell(StandingChanged("mike", on_duty=True, is_busy=False))
        assert phone.hears() == []
        assert phone.connection.standing == Standing(on_duty=False, is_busy=False)


async def test_duty_changed_on_one_device_shows_on_the_other_with_the_open_offers():
    async with stage() as here:
        here.dispatch.offers.append(an_offer("o1"))
        phone = await here.mechanic("mike", on_duty=False)
        tablet = await here.mechanic("mike")
        phone.says("set_availability", on_duty=True)
        await here.settled()
        assert phone.hears_kinds() == ["availability", "offer"]
        await here.tell(StandingChanged("mike", on_duty=True, is_busy=False))
        assert tablet.hears_kinds() == ["availability", "offer"]
        assert phone.hears() == []


async def test_who_ends_a_session_gets_what_was_broadcast_meanwhile():
    async with stage() as here:
        phone = await here.mechanic("mike", is_busy=True)
        await here.offer(an_offer("o1"))
        assert phone.hears() == []

        here.dispatch.standings["mike"] = Standing(on_duty=True, is_busy=False)
        await here.tell(StandingChanged("mike", on_duty=True, is_busy=False))
        (offer,) = phone.hears()
        assert offer["offer"]["offer_id"] == "o1"


async def test_busy_and_free_again_in_one_breath_misses_no_broadcast():
    # Interleaving: busy -> a broadcast passes by -> free, all before SQL was asked once.
    async with stage() as here:
        phone = await here.mechanic("mike")
        here.bus.hear(StandingChanged("mike", on_duty=True, is_busy=True))
        await here.offer(an_offer("o1"))
        await here.tell(StandingChanged("mike", on_duty=True, is_busy=False))
        assert phone.hears_kinds() == ["offer"]


# --- what they take ---------------------------------------------------------------------------------------------------


async def test_switching_a_kind_off_withdraws_its_broadcasts_from_every_device_and_no_priority_offer():
    async with stage() as here:
        phone, tablet = await here.mechanic("mike"), await here.mechanic("mike")
        other = await here.mechanic("jane")
        await here.offer(an_offer("chat"))
        await here.offer(an_offer("call", session_type="video"))
        await here.offer(an_offer("own", "priority"), to="mike")
        phone.hears(), tablet.hears(), other.hears()

        await choose(here, "text", version=7)
        gone = {"type": "offer_withdrawn", "offer_id": "chat", "reason": "declined"}
        assert (phone.hears(), tablet.hears(), other.hears()) == ([gone], [gone], [])
        await here.offer(an_offer("chat again"))
        assert phone.hears() == []


async def test_switching_a_kind_on_shows_its_open_broadcasts_and_none_twice():
    async with stage() as here:
        here.dispatch.standings["mike"] = Standing(True, False, version=6, types_off="text,video")
        phone = await here.mechanic("mike")
        await here.offer(an_offer("chat"))
        await here.offer(an_offer("look", session_type="diagnostic"))
        assert [heard["offer"]["offer_id"] for heard in phone.hears()] == ["look"]
        await choose(here, "video", version=7)
        assert [heard["offer"]["offer_id"] for heard in phone.hears()] == ["chat"]


async def test_what_was_switched_on_elsewhere_is_shown_also_if_it_is_known_by_the_answer_to_an_own_change_first():
    async with stage() as here:
        here.dispatch.standings["mike"] = Standing(True, False, version=6, types_off="text")
        phone = await here.mechanic("mike")
        await here.offer(an_offer("chat"))
        here.dispatch.standings["mike"] = Standing(True, False, version=7)
        phone.says("set_availability", on_duty=True)
        await here.settled()
        assert phone.hears_kinds() == ["availability", "offer"]


async def test_a_broadcast_that_was_read_before_its_kind_was_switched_off_is_withdrawn():
    # Interleaving: open offers are read for who goes on duty -> text is switched off elsewhere -> they are shown.
    async with stage() as here:
        here.dispatch.offers.append(an_offer("chat"))
        phone = await here.mechanic("mike", on_duty=False)
        here.dispatch.gate = anyio.Event()
        phone.says("set_availability", on_duty=True)
        await here.settled()
        await choose(here, "text", version=7)
        here.dispatch.gate.set()
        await here.settled()
        shown = {heard["offer"]["offer_id"] for heard in phone.messages if heard["type"] == "offer"}
        gone = {heard["offer_id"] for heard in phone.messages if heard["type"] == "offer_withdrawn"}
        assert shown == gone


async def test_what_is_switched_off_while_the_snapshot_is_read_is_withdrawn_after_the_welcome():
    # Interleaving: SQL is read (takes all) -> text is switched off on another device -> the welcome is written.
    async with stage() as here:
        here.dispatch.offers.append(an_offer("chat"))
        here.dispatch.snapshot_gate = anyio.Event()
        phone = here.open_mechanic("mike")
        await here.settled()
        await choose(here, "text", version=7)
        here.dispatch.snapshot_gate.set()
        await here.settled()
        assert phone.hears_kinds() == ["welcome", "offer_withdrawn"]


async def test_a_standing_told_by_a_node_of_the_version_before_leaves_what_is_switched_off_as_sql_has_it():
    async with stage() as here:
        here.dispatch.standings["mike"] = Standing(True, False, version=7, types_off="text")
        phone = await here.mechanic("mike")
        here.dispatch.standings["mike"] = Standing(False, False, version=8, types_off="text")
        await here.tell(StandingChanged("mike", on_duty=False, is_busy=False, version=8))
        assert [heard["on_duty"] for heard in phone.hears()] == [False]
        here.dispatch.standings["mike"] = Standing(True, False, version=9, types_off="text")
        await here.tell(StandingChanged("mike", on_duty=True, is_busy=False, version=9))
        assert [heard["on_duty"] for heard in phone.hears()] == [True]
        await here.offer(an_offer("chat"))
        await here.offer(an_offer("call", session_type="video"))
        assert [heard["offer"]["offer_id"] for heard in phone.hears()] == ["call"]


async def test_a_choice_told_after_a_later_change_by_a_node_of_the_version_before_still_counts():
    # Interleaving: text is off, of version 8 -> an old node tells of version 9 first, without saying so -> version 8 is told.
    async with stage() as here:
        phone = await here.mechanic("mike")
        await here.offer(an_offer("chat"))
        phone.hears()
        here.dispatch.standings["mike"] = Standing(True, False, version=9, types_off="text")
        await here.tell(StandingChanged("mike", on_duty=True, is_busy=False, version=9))
        await here.tell(StandingChanged("mike", on_duty=True, is_busy=False, version=8, types_off="text"))
        assert phone.hears_kinds() == ["offer_withdrawn"]


async def choose(here: Stage, types_off: str, *, version: int) -> None:
    """Let a mechanic have switched off kinds of session, on another device."""
    here.dispatch.standings["mike"] = Standing(True, False, version=version, types_off=types_off)
    await here.tell(StandingChanged("mike", on_duty=True, is_busy=False, version=version, types_off=types_off))


# --- offers -----------------------------------------------------------------------------------------------------------


async def test_a_broadcast_reaches_everybody_on_duty_free_and_not_excluded():
    async with stage() as here:
        free = await here.mechanic("free")
        others = [
            await here.mechanic("off", on_duty=False),
            await here.mechanic("busy", is_busy=True),
            await here.mechanic("declined"),
        ]
        await here.offer(an_offer("o1"), excluded=["declined"])
        (offer,) = free.hears()
        assert offer["type"] == "offer"
        assert offer["offer"]["expires_in_ms"] == 60_000
        assert [phone.hears() for phone in others] == [[], [], []]


async def test_a_priority_offer_reaches_all_devices_of_the_favourite_whatever_their_duty():
    async with stage() as here:
        phone, tablet = await here.mechanic("mike", on_duty=False), await here.mechanic("mike", on_duty=False)
        other = await here.mechanic("jane")
        await here.offer(an_offer("o1", "priority"), to="mike")
        assert (phone.hears_kinds(), tablet.hears_kinds(), other.hears()) == (["offer"], ["offer"], [])


async def test_an_offer_told_twice_is_shown_once():
    async with stage() as here:
        phone = await here.mechanic("mike")
        await here.offer(an_offer("o1"))
        await here.offer(an_offer("o1"))
        assert phone.hears_kinds() == ["offer"]


async def test_an_offer_told_after_its_withdrawal_is_not_shown():
    async with stage() as here:
        phone = await here.mechanic("mike")
        await here.tell(Withdraw("o1", "taken"))
        await here.offer(an_offer("o1"))
        assert phone.hears() == []


async def test_an_offer_that_was_held_up_on_its_way_is_looked_up_instead_of_shown():
    # A node that stood still tells a broadcast that was taken meanwhile, and its withdrawal went past in a gap.
    async with stage() as here:
        phone = await here.mechanic("mike")
        here.dispatch.offers = [an_offer("still-open")]
        late = an_offer("taken-meanwhile")
        await here.tell(OfferTo(late.offer, late.expires_at_ms, None, [], NOW_MS - LATE_AFTER_MS - 1))
        await here.until(lambda: phone.messages)
        assert [message["offer"]["offer_id"] for message in phone.hears()] == ["still-open"]


async def test_an_offer_is_sent_again_until_acknowledged_with_the_time_that_is_left():
    async with stage() as here:
        phone = await here.mechanic("mike")
        await here.offer(an_offer("o1", left_ms=60_000))
        phone.hears()
        now_s = monotonic()
        assert list(here.hub.offers.due(now_s + 4.9, NOW_MS)) == []
        ((shown, viewers),) = here.hub.offers.due(now_s + 5.1, NOW_MS + 5_100)
        assert viewers == [phone.connection]
        assert shown.view(NOW_MS + 5_100).expires_in_ms == 54_900

        phone.says("offer_ack", offer_id="o1")
        assert list(here.hub.offers.due(now_s + 60, NOW_MS + 5_200)) == []


async def test_only_the_first_acknowledgement_of_a_priority_offer_is_told_to_dispatch():
    async with stage() as here:
        phone = await here.mechanic("mike")
        await here.offer(an_offer("o1", "priority"), to="mike")
        await here.offer(an_offer("o2", "broadcast"))
        for offer_id in ("o1", "o1", "o2", "o3"):
            phone.says("offer_ack", offer_id=offer_id)
        await here.settled()
        assert here.dispatch.called("acknowledge") == [("acknowledge", "mike", "o1")]


async def test_an_acknowledgement_that_could_not_be_noted_counts_for_nothing():
    # Else a favourite who saw the offer would be woken for it, and the customer never be told.
    async with stage() as here:
        phone = await here.mechanic("mike")
        await here.offer(an_offer("o1", "priority"), to="mike")
        here.dispatch.is_away = True
        phone.says("offer_ack", offer_id="o1", seen=True)
        await here.settled()
        ((_, viewers),) = here.hub.offers.due(monotonic() + 5.1, NOW_MS)
        assert viewers == [phone.connection]
        here.dispatch.is_away = False
        phone.says("offer_ack", offer_id="o1", seen=True)
        await here.settled()
        assert here.dispatch.called("acknowledge") == [("acknowledge", "mike", "o1", "seen")] * 2


async def test_an_accept_that_wins_gets_the_request_and_no_withdrawal():
    async with stage() as here:
        phone, other = await here.mechanic("mike"), await here.mechanic("jane")
        await here.offer(an_offer("o1"))
        phone.hears(), other.hears()

        phone.says("accept", offer_id="o1")
        here.clock.now += 500  # the job runs later; what counts is when the accept arrived
        await here.settled()
        await here.tell(Withdraw("o1", "taken", except_connection_id=phone.connection.connection_id))
        (answer,) = phone.hears()
        assert (answer["type"], answer["offer_id"], answer["request"]["id"]) == ("offer_accepted", "o1", "r-o1")
        assert other.hears() == [{"type": "offer_withdrawn", "offer_id": "o1", "reason": "taken"}]
        assert here.dispatch.called("accept") == [("accept", "mike", "o1", NOW_MS)]


async def test_an_offer_that_is_told_after_its_accept_does_not_come_back_to_who_has_it():
    # Interleaving: a node reads the open offer -> the accept is committed and answered -> the first tells the offer.
    async with stage() as here:
        phone = await here.mechanic("mike")
        await here.offer(an_offer("o1"))
        phone.says("accept", offer_id="o1")
        await here.settled()
        assert phone.hears_kinds() == ["offer", "offer_accepted"]
        await here.offer(an_offer("o1"))
        assert phone.hears() == []


async def test_an_accept_that_loses_gets_an_error_with_the_reason():
    async with stage() as here:
        phone = await here.mechanic("mike")
        phone.says("accept", offer_id="o1")
        await here.settled()
        assert phone.hears() == [
            {"type": "error", "code": "offer_gone", "message": "Another mechanic was faster.", "ref": "o1"}
        ]


async def test_a_withdrawal_reaches_only_who_shows_the_offer():
    async with stage() as here:
        phone = await here.mechanic("mike")
        off_duty = await here.mechanic("off", on_duty=False)
        await here.offer(an_offer("o1"))
        phone.hears()
        await here.tell(Withdraw("o1", "cancelled"))
        await here.tell(Withdraw("o1", "cancelled"))
        assert phone.hears_kinds() == ["offer_withdrawn"]
        assert off_duty.hears() == []


async def test_the_withdrawal_of_a_priority_offer_is_looked_for_on_its_mechanic_s_devices_alone(monkeypatch):
    # Of ten thousand sockets two can show it.
    looked_at: list[str] = []
    withdraw = MechanicConnection.withdraw

    def counted(connection: MechanicConnection, offer_id: str, frame: bytes) -> None:
        looked_at.append(connection.account_id)
        withdraw(connection, offer_id, frame)

    async with stage() as here:
        phone, tablet, *_ = [await here.mechanic(one) for one in ("mike", "mike", "jane", "tom")]
        await here.offer(an_offer("o1", "priority"), to="mike")
        assert (phone.hears_kinds(), tablet.hears_kinds()) == (["offer"], ["offer"])
        monkeypatch.setattr(MechanicConnection, "withdraw", counted)
        await here.tell(Withdraw("o1", "expired", was_for_id="mike"))
        assert (phone.hears_kinds(), tablet.hears_kinds()) == (["offer_withdrawn"], ["offer_withdrawn"])
        assert looked_at == ["mike", "mike"]


async def test_a_declined_broadcast_is_withdrawn_on_the_devices_of_that_mechanic_alone():
    async with stage() as here:
        phone, tablet, other = await here.mechanic("mike"), await here.mechanic("mike"), await here.mechanic("jane")
        await here.offer(an_offer("o1"))
        for one in (phone, tablet, other):
            one.hears()
        phone.says("decline", offer_id="o1", reason="lunch")
        await here.settled()
        assert phone.hears() == []
        await here.tell(Withdraw("o1", "declined", only_mechanic_id="mike"))
        assert (phone.hears_kinds(), tablet.hears_kinds(), other.hears()) == (
            ["offer_withdrawn"],
            ["offer_withdrawn"],
            [],
        )


async def test_a_decline_that_is_repeated_is_answered_on_that_socket_alone():
    async with stage() as here:
        here.dispatch.offers.append(an_offer("o1"))
        phone, tablet = await here.mechanic("mike"), await here.mechanic("mike")
        phone.says("decline", offer_id="o1")
        await here.settled()
        await here.tell(Withdraw("o1", "declined", only_mechanic_id="mike"))
        phone.hears(), tablet.hears()
        phone.says("decline", offer_id="o1")
        await here.settled()
        answer = {"type": "offer_withdrawn", "offer_id": "o1", "reason": "declined"}
        assert (phone.hears(), tablet.hears()) == ([answer], [])


async def test_a_broadcast_that_is_told_after_it_was_declined_stays_away_from_who_declined_it():
    # Interleaving: a node reads who is excluded -> the decline is committed and told by another -> the first tells the broadcast.
    async with stage() as here:
        mike, tom = [await here.mechanic(one) for one in ("mike", "tom")]
        await here.tell(Withdraw("o1", "declined", only_mechanic_id="mike"))
        await here.offer(an_offer())
        assert mike.hears() == []
        assert tom.hears_kinds() == ["offer"]


async def test_a_request_update_reaches_the_mechanic():
    async with stage() as here:
        phone, other = await here.mechanic("mike"), await here.mechanic("jane")
        await here.tell(FrameToMechanic("mike", an_update()))
        assert phone.hears_kinds() == ["request_update"]
        assert other.hears() == []


# --- when things break ------------------------------------------------------------------------------------------------


async def test_a_database_that_is_away_is_said_and_the_next_try_succeeds():
    async with stage() as here:
        phone = await here.mechanic("mike")
        await here.offer(an_offer("o1"))
        phone.hears()
        here.dispatch.is_away = True
        phone.says("accept", offer_id="o1")
        await here.settled()
        (error,) = phone.hears()
        assert (error["code"], error["ref"]) == ("unavailable", "o1")

        here.dispatch.is_away = False
        phone.says("accept", offer_id="o1")
        await here.settled()
        assert phone.hears_kinds() == ["offer_accepted"]


@pytest.mark.bugs_planted
async def test_a_bug_is_told_to_the_one_who_met_it_and_nobody_else_notices():
    async with stage() as here:
        phone, other = await here.mechanic("mike"), await here.mechanic("jane")
        here.dispatch.is_buggy = True
        phone.says("accept", offer_id="o1")
        await here.settled()
        (error,) = phone.hears()
        assert (error["code"], error["ref"]) == ("internal_error", "o1")
        assert "bug" not in error["message"]
        other.says("heartbeat")
        assert other.hears_kinds() == ["heartbeat_ack"]


async def test_without_a_snapshot_there_is_no_connection_and_nobody_sees_them_come():
    async with stage() as here:
        here.dispatch.is_away = True
        phone = here.open_mechanic("mike")
        await here.settled()
        assert phone.is_refused
        assert phone.hears() == []
        assert here.presence.said == []


async def test_who_asks_for_more_than_can_be_in_hand_is_closed():
    async with stage(jobs_per_connection_max=3) as here:
        phone = await here.mechanic("mike")
        here.dispatch.gate = anyio.Event()
        for number in range(4):
            phone.says("decline", offer_id=f"o{number}")
        assert phone.closed_with == close_codes.TOO_MANY
        here.dispatch.gate.set()


async def test_an_accept_counts_even_if_its_sender_is_cut_off_right_after_it():
    async with stage() as here:
        phone = await here.mechanic("mike")
        await here.offer(an_offer("o1"))
        phone.says("accept", offer_id="o1")
        phone.hangs_up()
        await here.settled()
        assert here.dispatch.called("accept") == [("accept", "mike", "o1", NOW_MS)]


async def test_after_a_gap_everybody_is_brought_up_to_date():
    async with stage() as here:
        phone = await here.mechanic("mike")
        await here.offer(an_offer("seen-gone", left_ms=60_000))
        await here.offer(an_offer("seen-still"))
        phone.hears()
        # Unheard: one offer is taken, one is new, and mike gets a session's update.
        here.dispatch.offers = [an_offer("seen-still"), an_offer("new")]
        here.dispatch.requests = [a_request(version=7)]
        here.bus.miss_something()
        await here.settled()
        withdrawn, offer, update = phone.hears()
        assert withdrawn == {"type": "offer_withdrawn", "offer_id": "seen-gone", "reason": "taken"}
        assert offer["offer"]["offer_id"] == "new"
        assert update["request"]["version"] == 7


async def test_an_offer_that_went_unheard_because_its_mechanic_took_it_is_their_own_doing():
    async with stage() as here:
        tablet = await here.mechanic("mike")
        await here.offer(an_offer("o1"))
        tablet.hears()
        # Unheard: mike's phone accepts.
        here.dispatch.offers = []
        here.dispatch.requests = [a_request("r-o1")]
        here.bus.miss_something()
        await here.settled()
        withdrawn = tablet.hears()[0]
        assert withdrawn == {"type": "offer_withdrawn", "offer_id": "o1", "reason": "taken", "by_you": True}


async def test_a_break_is_told_with_the_answer_in_the_welcome_and_to_the_other_devices():
    async with stage() as here:
        phone, tablet = await here.mechanic("mike"), await here.mechanic("mike")
        phone.says("set_availability", on_duty=False, back_in_s=600)
        await here.settled()
        planned = {"back_at": rfc3339(NOW_MS + 600_000), "back_in_ms": 600_000}
        told = {"type": "availability", "on_duty": False, "availability": "off_duty", **planned}
        assert phone.hears() == [told]
        news = StandingChanged("mike", False, False, version=7, types_off="", back_at_ms=NOW_MS + 600_000)
        await here.tell(news)
        assert (phone.hears(), tablet.hears()) == ([], [told])
        late = here.open_mechanic("mike")
        await here.settled()
        assert late.hears()[0].items() >= {"type": "welcome", "on_duty": False, **planned}.items()
        # By hand, on any device: nothing is planned any more.
        here.dispatch.standings["mike"] = Standing(on_duty=False, is_busy=False, version=8)
        tablet.says("set_availability", on_duty=False)
        await here.settled()
        assert tablet.hears() == [{"type": "availability", "on_duty": False, "availability": "off_duty"}]


async def test_off_duty_after_the_session_is_told_and_refused_without_one():
    async with stage() as here:
        idle, busy = await here.mechanic("mike"), await here.mechanic("jane", is_busy=True)
        for phone in (idle, busy):
            phone.says("set_availability", on_duty=True, off_after_session=True)
        await here.settled()
        assert [said["code"] for said in idle.hears()] == ["not_in_session"]
        told = {"type": "availability", "on_duty": True, "availability": "busy", "off_after_session": True}
        assert busy.hears() == [told]
        await here.tell(StandingChanged("jane", on_duty=False, is_busy=False, version=8, types_off=""))
        assert busy.hears() == [{"type": "availability", "on_duty": False, "availability": "off_duty"}]


async def test_a_gap_is_healed_though_the_snapshot_could_not_be_read_at_first(monkeypatch):
    monkeypatch.setattr(stale, "AGAIN_AFTER_S", 0.01)
    async with stage() as here:
        phone = await here.mechanic("mike")
        here.dispatch.offers = [an_offer("new")]
        here.dispatch.is_away = True
        here.bus.miss_something()
        await here.until(lambda: len(here.dispatch.called("offers_for")) >= 4)
        assert phone.hears() == [], "nothing that mike asked for has failed"
        here.dispatch.is_away = False
        await here.until(lambda: phone.messages)
        assert phone.hears_kinds() == ["offer"]


async def test_a_gap_during_the_handshake_is_healed_after_the_welcome():
    async with stage() as here:
        here.dispatch.snapshot_gate = anyio.Event()
        phone = here.open_mechanic("mike")
        await here.settled()
        # Read, but not sent yet; what comes now is not heard.
        here.dispatch.offers = [an_offer("unheard")]
        here.bus.miss_something()
        here.dispatch.snapshot_gate.set()
        await here.settled()
        welcome, offer = phone.hears()
        assert (welcome["offers"], offer["offer"]["offer_id"]) == ([], "unheard")


async def test_what_was_left_half_done_when_the_database_went_away_is_made_good(monkeypatch):
    # Duty was switched on; the offers that are open to mike could not be read any more.
    monkeypatch.setattr(stale, "AGAIN_AFTER_S", 0.01)
    async with stage() as here:
        phone = await here.mechanic("mike", on_duty=False)
        here.dispatch.offers = [an_offer("o1")]
        here.dispatch.gate = anyio.Event()
        phone.says("set_availability", on_duty=True)
        await here.settled()
        here.dispatch.goes_away_after("set_on_duty")
        here.dispatch.gate.set()
        await here.until(lambda: "unavailable" in [message.get("code") for message in phone.messages])
        here.dispatch.is_away = False
        await here.until(lambda: phone.messages[-1]["type"] == "offer")


async def test_a_standing_heard_while_the_snapshot_after_a_gap_is_read_is_newer_than_it():
    # Unheard, mike goes off duty; the snapshot says so. Before it is followed he is back, which is no news to a socket that
    # never knew that he was away; then the snapshot is followed, and no broadcast would ever reach him again.
    async with stage() as here:
        phone = await here.mechanic("mike")
        here.dispatch.standings["mike"] = Standing(on_duty=False, is_busy=False)
        here.dispatch.snapshot_gate = anyio.Event()
        here.bus.miss_something()
        await here.settled()
        here.dispatch.standings["mike"] = Standing(on_duty=True, is_busy=False)
        await here.tell(StandingChanged("mike", on_duty=True, is_busy=False))
        here.dispatch.snapshot_gate.set()
        await here.settled()
        phone.hears()
        await here.offer(an_offer("o1"))
        assert phone.hears_kinds() == ["offer"]


@pytest.mark.parametrize(
    "unheard",
    [
        Standing(on_duty=False, is_busy=False, version=2),
        Standing(on_duty=True, is_busy=True, version=2),
        Standing(on_duty=True, is_busy=False, version=2, types_off="text"),
    ],
    ids=["off duty", "busy", "switched off"],
)
async def test_a_card_stays_though_the_snapshot_after_a_gap_was_read_by_a_standing_that_is_over(unheard):
    # Interleaving: unheard, mike goes off duty -> the snapshot is read, without broadcasts -> he is back, which is heard -> the
    # snapshot arrives. This socket never knew that he was away, so it had no reason to ask for broadcasts again.
    async with stage() as here:
        here.dispatch.standings["mike"] = Standing(on_duty=True, is_busy=False, version=1)
        phone = await here.mechanic("mike")
        await here.offer(an_offer("o1"))
        phone.hears()
        arrives = await read_while_away(here, unheard, here.bus.miss_something)
        arrives.set()
        await here.settled()
        assert phone.hears() == []


async def test_a_card_that_went_with_a_standing_that_is_over_comes_back():
    # As before; and while the snapshot is read again, the same happens once more.
    async with stage() as here:
        here.dispatch.standings["mike"] = Standing(on_duty=True, is_busy=False, version=1)
        phone = await here.mechanic("mike")
        await here.offer(an_offer("o1"))
        phone.hears()
        first = await read_while_away(here, Standing(False, False, version=2), here.bus.miss_something)
        again = await read_while_away(here, Standing(False, False, version=4), first.set)
        again.set()
        await here.settled()
        assert phone.hears_kinds() == ["offer_withdrawn", "offer"]


@pytest.mark.parametrize("is_read_slowly", [True, False])
async def test_offers_read_by_a_standing_that_nobody_tells_are_read_again_after_it(is_read_slowly):
    # Interleaving: on duty, which is told -> off duty -> the open offers are read: none -> on duty again. Of the last two only the
    # newer one is told, as it is when they gather in an outbox.
    async with stage() as here:
        here.dispatch.offers.append(an_offer("o1"))
        here.dispatch.standings["mike"] = Standing(on_duty=False, is_busy=False, version=1)
        phone = await here.mechanic("mike")
        on_duty = StandingChanged("mike", on_duty=True, is_busy=False, version=2, types_off="")
        if is_read_slowly:
            arrives = await read_while_away(here, Standing(False, False, version=3), lambda: here.bus.hear(on_duty))
            arrives.set()
            await here.settled()
        else:
            here.dispatch.standings["mike"] = Standing(on_duty=False, is_busy=False, version=3)
            await here.tell(on_duty)
            await come_back(here, version=4)
        assert phone.hears_kinds().count("offer") == 1


async def read_while_away(here: Stage, away: Standing, begin: Callable[[], None]) -> anyio.Event:
    """Have ``begin`` cause the reading of a snapshot while mike is away, unheard; before it arrives he is back, which is heard.

    Return what lets it arrive.
    """
    here.dispatch.standings["mike"] = away
    here.dispatch.snapshot_gate = arrives = anyio.Event()
    begin()
    await here.settled()
    await come_back(here, version=away.version + 1)
    return arrives


async def come_back(here: Stage, *, version: int) -> None:
    """Let mike be on duty and free again, and everybody hear it."""
    here.dispatch.standings["mike"] = Standing(on_duty=True, is_busy=False, version=version)
    await here.tell(StandingChanged("mike", on_duty=True, is_busy=False, version=version, types_off=""))


async def test_a_broadcast_that_opens_while_the_first_snapshot_is_read_is_not_missed():
    # It is not in the snapshot, which was read before it was committed, and came before anybody knew that mike is on duty.
    async with stage() as here:
        here.dispatch.snapshot_gate = anyio.Event()
        phone = here.open_mechanic("mike")
        await here.settled()
        await here.offer(an_offer("o1"))
        here.dispatch.snapshot_gate.set()
        await here.settled()
        welcome, offer = phone.hears()
        assert (welcome["offers"], offer["offer"]["offer_id"]) == ([], "o1")


async def test_a_broadcast_that_opens_while_the_snapshot_after_a_gap_is_read_is_not_missed():
    # Unheard, mike's session ends; the snapshot says so, and was read before the broadcast was committed. Before it is followed
    # the broadcast comes, which is not for somebody in a session.
    async with stage() as here:
        phone = await here.mechanic("mike", is_busy=True)
        here.dispatch.standings["mike"] = Standing(on_duty=True, is_busy=False)
        here.dispatch.snapshot_gate = anyio.Event()
        here.bus.miss_something()
        await here.settled()
        await here.offer(an_offer("o1"))
        assert phone.hears() == []
        here.dispatch.snapshot_gate.set()
        await here.settled()
        assert phone.hears_kinds().count("offer") == 1


# --- time -------------------------------------------------------------------------------------------------------------


async def test_silence_brings_a_ping_and_then_the_end():
    async with stage(heartbeat_interval_ms=20_000, presence_timeout_ms=45_000) as here:
        phone = await here.mechanic("mike")
        connection = phone.connection
        # A start that adds to the seconds below without rounding.
        connection.heard_at_s = connection._pinged_at_s = start_s = 1_024.0
        for at_s, pings in ((19, 0), (23, 1), (30, 1), (44, 1), (44.9, 1)):
            connection.check_time(start_s + at_s, NOW_MS)
            assert phone.pings == pings
        connection.check_time(start_s + 45, NOW_MS)
        assert phone.closed_with == close_codes.SILENT
        assert here.presence.said[-1] == ("left", "mike")


async def test_an_expired_token_ends_the_connection():
    async with stage() as here:
        phone = await here.mechanic("mike")
        connection = phone.connection
        connection.check_time(connection.heard_at_s, EXPIRES_AT_S * 1000 - 1)
        assert phone.closed_with is None
        connection.check_time(connection.heard_at_s, EXPIRES_AT_S * 1000)
        assert phone.closed_with == close_codes.TOKEN_EXPIRED


async def test_a_drain_sends_everybody_away_and_waits_for_what_they_had_asked():
    async with stage() as here:
        phone, customer = await here.mechanic("mike"), await here.customer("doe")
        here.dispatch.gate = anyio.Event()
        phone.says("decline", offer_id="o1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(here.hub.drain)
            await here.settled()
            assert (phone.closed_with, customer.closed_with) == (close_codes.RESTARTING, close_codes.RESTARTING)
            assert here.hub.connection_counts == {"mechanic": 0, "customer": 0}
            here.dispatch.gate.set()
        assert here.dispatch.called("decline")
