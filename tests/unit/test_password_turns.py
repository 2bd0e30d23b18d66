"""Passwords are worked on a few at a time: sign-ins first, each lane in order and bounded."""

from functools import partial

from accounts.passwords import Turns


class Lane:
    """Who got their turn, in order."""

    def __init__(self, side_by_side: int = 1) -> None:
        self.turns = Turns(side_by_side, sign_ins_max=3, others_max=2)
        self.went: list[str] = []
        self._asked: dict[str, partial[None]] = {}

    def ask(self, who: str) -> bool:
        self._asked[who] = partial(self.went.append, who)
        return self.turns.ask(self._asked[who], is_sign_in=who.startswith("sign-in"))

    def give_up(self, who: str) -> bool:
        return self.turns.give_up(self._asked[who])


def test_a_sign_in_goes_before_registrations_that_came_earlier() -> None:
    lane = Lane()
    for who in ("registration 1", "registration 2", "registration 3", "sign-in 1", "sign-in 2"):
        assert lane.ask(who)
    for _ in range(4):
        lane.turns.end()
    assert lane.went == ["registration 1", "sign-in 1", "sign-in 2", "registration 2", "registration 3"]


def test_as_many_go_side_by_side_as_may_and_a_free_place_is_taken_at_once() -> None:
    lane = Lane(side_by_side=2)
    lane.ask("registration 1"), lane.ask("sign-in 1"), lane.ask("sign-in 2")
    assert lane.went == ["registration 1", "sign-in 1"]
    lane.turns.end()
    lane.turns.end()
    lane.turns.end()
    assert lane.ask("registration 2")
    assert lane.went == ["registration 1", "sign-in 1", "sign-in 2", "registration 2"]


def test_either_lane_is_bounded_and_a_full_one_is_not_in_the_others_way() -> None:
    lane = Lane()
    assert [lane.ask(f"registration {number}") for number in range(4)] == [True, True, True, False]
    assert [lane.ask(f"sign-in {number}") for number in range(4)] == [True, True, True, False]
    lane.turns.end()
    assert lane.ask("sign-in 4")
    assert not lane.ask("registration 4")


def test_whoever_gives_up_leaves_no_gap_and_learns_whether_their_turn_had_come() -> None:
    lane = Lane()
    for who in ("registration 1", "sign-in 1", "sign-in 2"):
        lane.ask(who)
    assert lane.give_up("sign-in 1")
    assert not lane.give_up("registration 1")
    lane.turns.end()
    assert lane.went == ["registration 1", "sign-in 2"]
