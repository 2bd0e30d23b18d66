"""The types that the pages are checked with are those that the server works with."""

from inspect import cleandoc
from typing import Annotated, Any, Literal

import pytest
from msgspec import UNSET, Meta, Struct, UnsetType

from http_api.pages import wire_js
from http_api.sockets import close_codes
from models import wire
from models.words import OfferKind


def test_the_file_is_what_would_be_written_now() -> None:
    written = wire_js.FILE.read_text(encoding="utf-8")
    assert written == wire_js.wire_js(), "write it anew: python -m http_api.pages.wire_js"


def test_every_message_has_its_type_and_every_union_its_members() -> None:
    text = wire_js.wire_js()
    for name in ("MechanicMessage", "ToMechanic", "CustomerMessage", "ToCustomer"):
        assert f"}} {name} */" in text or f"}} {name}\n" in text
        for message in getattr(wire, name).__args__:
            tag = message.__struct_config__.tag
            assert f'@typedef {{object}} {message.__name__}\n * @property {{"{tag}"}} type\n' in text


def test_every_close_code_says_what_to_do() -> None:
    text = wire_js.wire_js()
    for one in close_codes.CLOSE_CODES:
        assert f'  /** {one.meaning} */\n  {one.code}: "{one.then.name.lower()}",\n' in text


class Inner(Struct):
    name: str


class Every(Struct, tag_field="type", tag="every"):
    """One of each kind, ``Inner`` and ``None`` included.

    In two paragraphs.
    """

    text: str
    whole: int
    part: float
    whether: bool
    word: Literal["a", "b"]
    known: wire.Availability
    from_an_enum: OfferKind
    at: wire.Timestamp
    short: Annotated[str, Meta(max_length=3)]
    inner: Inner
    perhaps: Inner | None
    many: list[Inner]
    many_or_none: list[Inner | None]
    by_name: dict[str, int]
    anything: Any
    left_out: int | None = None
    unset: int | UnsetType = UNSET


class Unknown(Struct):
    what: bytes


def test_each_kind_of_member_has_its_counterpart() -> None:
    assert wire_js.object_typedef(Every) == cleandoc(
        """
        /**
         * One of each kind, `Inner` and `null` included.
         *
         * In two paragraphs.
         * @typedef {object} Every
         * @property {"every"} type
         * @property {string} text
         * @property {number} whole
         * @property {number} part
         * @property {boolean} whether
         * @property {"a" | "b"} word
         * @property {Availability} known
         * @property {OfferKind} from_an_enum
         * @property {Timestamp} at
         * @property {string} short
         * @property {Inner} inner
         * @property {Inner | null} perhaps
         * @property {Inner[]} many
         * @property {(Inner | null)[]} many_or_none
         * @property {Record<string, number>} by_name
         * @property {unknown} anything
         * @property {number | null} [left_out]
         * @property {number} [unset]
         */
        """
    )


def test_a_kind_without_a_counterpart_is_named() -> None:
    with pytest.raises(TypeError, match="bytes"):
        wire_js.object_typedef(Unknown)
