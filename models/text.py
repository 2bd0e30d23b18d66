"""What people write, as it is kept: normalised, and without what nobody can see or what makes text read otherwise than it is."""

import unicodedata
from typing import Final

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


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs") and character not in _INVISIBLE
