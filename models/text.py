"""What people write, as it is kept: normalised, and without what nobody can see or what makes text read otherwise than it is."""

import re
import unicodedata
from typing import Final

from models.outcomes import Refused

NAME_LEN_MAX: Final = 100
NOTE_LEN_MAX: Final = 500
REASON_LEN_MAX: Final = 200
LABEL_LEN_MAX: Final = 80
"""Characters of what is kept: counted as NFC, in which most take less room than they may come in, and a few more."""

MARKS_MAX: Final = 6
"""Marks above, below and around one character. Burmese and Tibetan take five or six; more is drawn over the lines around it."""

_IGNORED: Final = (
    *("\u00ad\u00ad", "\u034f\u034f", "\u061c\u061c", "\u115f\u1160", "\u17b4\u17b5", "\u180b\u180f", "\u200b\u200f"),
    *("\u202a\u202e", "\u2060\u206f", "\u3164\u3164", "\ufe00\ufe0f", "\ufeff\ufeff", "\uffa0\uffa0", "\ufff0\ufff8"),
    *("\U0001bca0\U0001bca3", "\U0001d173\U0001d17a", "\U000e0000\U000e0fff"),
)
"""First and last of each range with the property Default_Ignorable_Code_Point (Unicode UAX 44): fillers, joiners, variation
selectors, tags, whatever shows nothing, also those that are not assigned yet."""
_UNSEEN: Final = frozenset(chr(code) for first, last in _IGNORED for code in range(ord(first), ord(last) + 1))
_LINE_ENDS: Final = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")


def cleaned(text: str, *, keeps_lines: bool = False) -> str:
    """Return text as NFC (Unicode UAX 15) without control, zero-width or bidirectional characters, and without blanks around it.

    Every kind of line break becomes a blank, or ``\\n`` with ``keeps_lines``; every kind of blank the usual one. What is not
    assigned yet, or for private use, stays: it shows, if only as a box, and may be tomorrow's emoji. Empty if nothing is left.
    Idempotent.
    """
    plain = _LINE_ENDS.sub("\n", text)
    if not keeps_lines:
        plain = plain.replace("\n", " ")
    seen = "".join(_as_seen(character) for character in plain)
    # Afterwards: what stood between two characters may have kept them from becoming one.
    return _with_few_marks(unicodedata.normalize("NFC", seen)).strip()


def is_clean(text: str) -> bool:
    """Tell whether nothing would be taken from a text, as that of an address must be, which is compared and not only read."""
    return cleaned(text) == unicodedata.normalize("NFC", text)


def kept(
    written: str, member: str, *, len_max: int, keeps_lines: bool = False, is_optional: bool = True
) -> str | Refused:
    """Return ``written`` cleaned, or why it cannot be kept: nothing of it can be seen, or more than ``len_max`` characters are.

    ``member`` is what it is called where it was asked for.
    """
    text = cleaned(written, keeps_lines=keeps_lines)
    if not text:
        instead = "; leave it out instead" if is_optional else ""
        return Refused("validation_failed", f"The {member} has no character that can be seen{instead}.", member=member)
    if len(text) > len_max:
        return Refused("validation_failed", f"Takes at most {len_max} characters.", member=member)
    return text


def _as_seen(character: str) -> str:
    """Return a character, a blank for one that looks like one, and nothing for one that cannot be seen."""
    category = unicodedata.category(character)
    if character == "\n":
        return character
    if character in "\t\u2800" or category == "Zs":
        return " "
    is_noncharacter = category == "Cn" and (ord(character) & 0xFFFE == 0xFFFE or "\ufdd0" <= character <= "\ufdef")
    return "" if category in ("Cc", "Cf", "Cs") or is_noncharacter or character in _UNSEEN else character


def _with_few_marks(text: str) -> str:
    """Return a text without the marks that stand on nothing, as at the beginning of a line, or are too many for one place."""
    if text.isascii():
        return text
    kept_of_it: list[str] = []
    marks, has_begun = 0, False
    for character in text:
        category = unicodedata.category(character)
        if category in ("Mn", "Me", "Mc"):
            # Those that take room of their own (Mc) cover nobody's.
            marks += category != "Mc"
            if not has_begun or (marks > MARKS_MAX and category != "Mc"):
                continue
        else:
            marks = 0
            has_begun = character != "\n" and (has_begun or character != " ")
        kept_of_it.append(character)
    return "".join(kept_of_it)
