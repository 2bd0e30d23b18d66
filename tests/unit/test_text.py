"""What people write is kept without what nobody can see, and is otherwise theirs."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.text import cleaned


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Zoë O'Neill", "Zoë O'Neill"),
        ("Zoe\u0308", "Zoë"),
        ("Zoe\u200b\u0308", "Zoë"),
        ("\x00a\x1b[31mb", "a[31mb"),
        ("\u202eeve", "eve"),
        ("a\u200bb\u2066c\ufeff", "abc"),
        ("  Eve \n", "Eve"),
        ("Eve\nx", "Eve x"),
        ("\u200b\u3164 ", ""),
        ("日本語 テスト", "日本語 テスト"),
    ],
)
def test_a_name_is_kept_without_what_nobody_can_see(text: str, kept: str) -> None:
    assert cleaned(text) == kept


def test_a_reason_keeps_its_line_breaks() -> None:
    assert cleaned("late\r\ntyre\x00 flat\n", keeps_lines=True) == "late\ntyre flat"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\u2028b\u2029c\x85d\re\x0bf\x0cg", "a b c d e f g"),
        ("a\u00a0b\u3000c\u2800d\te", "a b c d e"),
        ("\u2800\u00a0\u3000", ""),
        # Fillers and variation selectors, alone and between letters; tags, also one that is not assigned.
        ("\u17b4\u034f\u180b\ufe0f\U000e0100\U000e0fff", ""),
        ("ad\ufe0fa\u034fm \U000e0067", "adam"),
        ("\ufffe\uffff\U0001ffff\ufdd0a", "a"),
        ("half \ud83d a pair", "half  a pair"),
        # What may be tomorrow's emoji, and what a font of somebody's own shows: seen, if only as a box.
        ("\U0001faf0 \uf8ff", "\U0001faf0 \uf8ff"),
        # Marks that stand on nothing would be drawn over what a page shows before them.
        ("\u0301\u0489Eve", "Eve"),
        ("\n \u0301\n", ""),
        ("Z" + 40 * "\u0335" + "a", "Z" + 6 * "\u0335" + "a"),
        ("ကြျွှိုံ့းမြို့", "ကြျွှိုံ့းမြို့"),
        ("שָׁלוֹם", "שָׁלוֹם"),
    ],
)
def test_neither_fillers_nor_odd_blanks_nor_towers_of_marks_are_kept(text: str, kept: str) -> None:
    assert cleaned(text) == unicodedata.normalize("NFC", kept)


def test_every_kind_of_line_break_of_a_note_is_the_usual_one() -> None:
    assert cleaned("a\r\nb\rc\u2028d\u2029e\x85f\x0b\x0cg", keeps_lines=True) == "a\nb\nc\nd\ne\nf\n\ng"


ODD = " \n\r\x85a\u0301\u0308\u0344\u0338\u0335\u1100\u1161\u11a8\u0915\u093c\u094d\u05bc\u2028\u200d\ufe0f\u2800\ud800"


@given(st.text(st.one_of(st.characters(exclude_categories=[]), st.sampled_from(ODD))), st.booleans())
def test_what_is_kept_is_composed_and_stays_as_it_is_when_it_is_cleaned_again(text: str, keeps_lines: bool) -> None:
    kept = cleaned(text, keeps_lines=keeps_lines)
    assert cleaned(kept, keeps_lines=keeps_lines) == kept == unicodedata.normalize("NFC", kept)
    kept.encode()
