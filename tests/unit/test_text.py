"""What people write is kept without what nobody can see, and is otherwise theirs."""

import pytest

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
