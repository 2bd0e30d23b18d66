"""What is sent to many goes in slices; what happens between two of them counts for whoever is still to come."""

import pytest

from dispatch.deliveries import Withdraw
from infra import slices
from tests.unit.connection_stage import Phone, Stage, an_offer, stage


@pytest.fixture(autouse=True)
def _one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_S", -1)
    monkeypatch.setattr(slices, "SLICE_LOOK_LEN", 1)


async def test_an_offer_that_goes_while_it_is_sent_again_is_sent_to_nobody_after_its_withdrawal(
    monkeypatch: pytest.MonkeyPatch,
):
    # Interleaving: the first phone is sent the offer again -> the withdrawal is told to all -> it is the other phones' turn.
    async with stage(resend_interval_ms=100) as here:
        first, *others = [await here.mechanic(f"mechanic-{number}") for number in range(5)]
        await here.offer(an_offer("o1"))

        def withdraw() -> None:
            first.on_frame = None
            monkeypatch.setattr(slices, "SLICE_S", 60)
            here.bus.hear(Withdraw("o1", "taken"))

        first.on_frame = withdraw
        await here.until(lambda: all("offer_withdrawn" in kinds_of(phone) for phone in (first, *others)))
        await here.settled()
        assert [phone.hears_kinds()[-1] for phone in (first, *others)] == ["offer_withdrawn"] * 5


async def test_an_offer_that_is_acknowledged_while_it_is_sent_again_does_not_come_again():
    # Interleaving: the first phone is sent the offer again -> the last one acknowledges it -> it is the last one's turn.
    async with stage(resend_interval_ms=100) as here:
        first, last = await here.mechanic("jane"), await here.mechanic("mike")
        await here.offer(an_offer("o1"))
        first.on_frame = lambda: last.says("offer_ack", offer_id="o1")
        # On a slow machine both may have been sent it again before.
        before, wanted = kinds_of(last).count("offer"), kinds_of(first).count("offer") + 2
        await here.until(lambda: kinds_of(first).count("offer") >= wanted)
        assert kinds_of(last).count("offer") == before


async def test_an_offer_that_is_told_again_does_not_come_back_to_who_takes_it_meanwhile():
    # Interleaving: the broadcast is told once more -> between two slices mike's accept wins -> it is mike's turn.
    async with stage() as here:
        first = await here.mechanic("jane")
        await crowd(here)
        winner = await here.mechanic("mike")
        await here.offer(an_offer("o1"), excluded=["jane"])
        first.on_frame = lambda: winner.says("accept", offer_id="o1")
        await here.offer(an_offer("o1"))
        assert winner.hears_kinds() == ["offer", "offer_accepted"]


async def crowd(here: Stage) -> None:
    """Put so many others in between that a job is done before the last one's turn."""
    for number in range(20):
        await here.mechanic(f"other-{number}")


def kinds_of(phone: Phone) -> list[str]:
    """What was sent to it, left unheard."""
    return [message["type"] for message in phone.messages]
