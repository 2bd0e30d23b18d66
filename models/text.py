"""What people write, as it is kept: normalised, and without what nobody can see or what makes text read otherwise than it is."""

import unicodedata
from typing import Final

from models.outcomes import Refused

NAME_LEN_MAX: Final = 100
NOTE_LEN_MAX: Final = 500
REASON_LEN_MAX: Final = 200
LABEL_LEN_MAX: Final = 80
"""Characters of what is kept: counted as NFC, in which most take less room than they may come in, and a few more."""

_INVISIBLE: Final = frozenset("\u00ad\u061c\u115f\u1160\u180e\u3164\ufeff\uffa0")
"""Soft hyphen, marks and fillers that show nothing; zero-width and direction-changing characters are of the category Cf."""


def cleaned(text: str, *, keeps_lines: bool = False) -> str:
    """Return text as NFC (Unicode UAX 15) without control, zero-width or bidirectional characters, and without blanks around it.

    Line breaks become blanks, or stay with ``keeps_lines``. Empty if nothing is left.
    """
    plain = text.replace("\r\n", "\n").replace("\t", " ")
    if not keeps_lines:
        plain = plain.replace("\n", " ")
    seen = "".join(character for character in plain if character == "\n" or _is_seen(character))
    # Afterwards: what stood between two characters may have kept them from becoming one.
    return unicodedata.normalize("NFC", seen).strip()


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


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs") and character not in _INVISIBLE
