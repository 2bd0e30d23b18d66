"""Writes ``clients/javascript/wire.js``: what travels on the wire, as the types that the client and the pages are checked with.

    python -m http_api.pages.wire_js

The text is made of the very types that the server decodes and encodes with, and of the tables of close codes and of currencies. A
test fails while the file says anything else.
"""

import json
from collections.abc import Iterable
from enum import Enum
from inspect import cleandoc
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from msgspec import Meta, Struct, UnsetType
from msgspec.structs import fields

from http_api.sockets.asyncapi import CHANNELS
from http_api.sockets.close_codes import CLOSE_CODES, Then
from models import currencies, rest, wire

FILE: Final = Path(__file__).parents[2] / "clients" / "javascript" / "wire.js"
LINE_LEN_MAX: Final = 120

_HEAD: Final = """
What travels between clients and the server. Written by `python -m http_api.pages.wire_js`, from `models/wire.py`,
`models/rest.py`, `models/currencies.py` and `http_api/sockets/close_codes.py`: change those and never this file.

Unknown members are to be ignored: a newer server may say more than is written here.
"""
_PLAIN: Final = {str: "string", int: "number", float: "number", bool: "boolean", NoneType: "null", Any: "unknown"}


def wire_js() -> str:
    """Return the whole file."""
    unions = {name: value for name, value in vars(wire).items() if _is_union(value)}
    parts = [
        _comment(cleandoc(_HEAD).splitlines()),
        "// ---- words ----",
        *(_word(name, value) for name, value in _WORDS.items()),
        "// ---- objects and messages of the sockets ----",
        *map(object_typedef, _structs(wire)),
        *(_alternatives(name, map(_type, get_args(union))) for name, union in unions.items()),
        _channels({union: name for name, union in unions.items()}),
        f"/** How many mechanics one socket may watch. */\nexport const WATCH_MAX = {wire.WATCH_MAX};",
        "// ---- why a socket was closed ----",
        _then(),
        _close_codes(),
        "// ---- amounts of money ----",
        _decimals(),
        "// ---- bodies and answers of REST ----",
        *map(object_typedef, _structs(rest)),
    ]
    return "\n\n".join(parts) + "\n"


# --- what there is to write about -------------------------------------------------------------------------------------


def _is_word(value: object) -> bool:
    """Whether it is a kind of text that has a name: one of a few words, or one that says of itself what it is."""
    if get_origin(value) is Annotated:
        return _description(value) is not None
    return get_origin(value) is Literal or (isinstance(value, type) and issubclass(value, Enum))


def _is_union(value: object) -> bool:
    return isinstance(value, UnionType) and all(map(_is_struct, get_args(value)))


def _is_struct(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Struct)


def _structs(module: ModuleType) -> list[type[Struct]]:
    """Return the objects that a module defines, in its order."""
    return [value for value in vars(module).values() if _is_struct(value) and value.__module__ == module.__name__]


def _description(annotated: Any) -> str | None:
    metas = [one for one in annotated.__metadata__ if isinstance(one, Meta)]
    return next((one.description for one in metas if one.description), None)


_WORDS: Final = {name: value for module in (wire, rest) for name, value in vars(module).items() if _is_word(value)}


# --- Python's types in TypeScript's words -----------------------------------------------------------------------------


def _type(annotation: Any) -> str:
    for name, word in _WORDS.items():
        if word == annotation:
            return name
    return _spelled_out(annotation)


def _spelled_out(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if _is_struct(annotation):
        return str(annotation.__name__)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " | ".join(map(json.dumps, arguments))
    if origin in (Union, UnionType):
        # A member that may be unset is one that may be left out; its own line says so.
        return " | ".join(_type(one) for one in arguments if one is not UnsetType)
    if origin is list:
        item = _type(arguments[0])
        return f"({item})[]" if " | " in item else f"{item}[]"
    if origin is dict:
        return "Record<{}, {}>".format(*map(_type, arguments))
    raise TypeError(f"{annotation!r} has no counterpart in the pages")


# --- JSDoc ------------------------------------------------------------------------------------------------------------


def _word(name: str, value: Any) -> str:
    if get_origin(value) is Annotated:
        return _comment([f"{_description(value)} @typedef {{{_spelled_out(value)}}} {name}"])
    texts: Iterable[str] = get_args(value) or value
    return _alternatives(name, map(json.dumps, texts))


def _alternatives(name: str, types: Iterable[str]) -> str:
    """Return the typedef of a union: on one line if it fits there, else one line for each."""
    types = list(types)
    line = _comment([f"@typedef {{{' | '.join(types)}}} {name}"])
    if len(line) <= LINE_LEN_MAX:
        return line
    first, *rest = types
    return _comment([f"@typedef {{{first}", *(f"  | {one}" for one in rest[:-1]), f"  | {rest[-1]}}} {name}"])


def object_typedef(struct: type[Struct]) -> str:
    """Return an object as the pages write it: its docstring, and a line for each member."""
    prose = cleandoc(struct.__doc__ or "").replace("``None``", "`null`").replace("``", "`")
    lines = [*prose.splitlines(), f"@typedef {{object}} {struct.__name__}"]
    config = struct.__struct_config__
    if config.tag is not None:
        lines.append(f"@property {{{json.dumps(config.tag)}}} {config.tag_field}")
    for field in fields(struct):
        name = field.encode_name if field.required else f"[{field.encode_name}]"
        lines.append(f"@property {{{_type(field.type)}}} {name}")
    return _comment(lines)


def _comment(lines: list[str]) -> str:
    if len(lines) == 1:
        return f"/** {lines[0]} */"
    return "\n".join(["/**", *(f" * {line}".rstrip() for line in lines), " */"])


def _channels(names: dict[Any, str]) -> str:
    lines = ["What travels on each socket, by its path.", "@typedef {{"]
    for path, _, to_server, to_client in CHANNELS.values():
        lines.append(f"  {json.dumps(path)}: {{to_server: {names[to_server]}, to_client: {names[to_client]}}},")
    return _comment([*lines, "}} Channels"])


def _then() -> str:
    """Return the typedef of what to do after a close, in a word each."""
    words = " | ".join(json.dumps(_word_of(then)) for then in Then)
    lines = [f"- `{_word_of(then)}`: {then.value}" for then in Then]
    return _comment(["What to do after a close.", *lines, f"@typedef {{{words}}} Then"])


def _close_codes() -> str:
    head = _comment(["What to do after a close, by its code.", "@type {Readonly<Record<number, Then>>}"])
    lines = [f"  /** {one.meaning} */\n  {one.code}: {json.dumps(_word_of(one.then))}," for one in CLOSE_CODES]
    return "\n".join([head, "export const CLOSE_CODES = {", *lines, "};"])


def _decimals() -> str:
    """Return the table of currencies; ``money.js`` reads it."""
    usual = "/** How many decimals the amounts of most currencies have. */"
    other = _comment(
        [
            "How many they have of the others, by the code (docs.stripe.com/currencies, as of charges).",
            "@type {Readonly<Record<string, number>>}",
        ]
    )
    whole = "/** Counted in hundredths, and written without: these have only whole ones. @type {readonly string[]} */"
    return "\n".join(
        [
            f"{usual}\nexport const DECIMALS_USUAL = {currencies.DECIMALS_USUAL};",
            f"{other}\nexport const DECIMALS = {{",
            *(f"  {code}: {count}," for code, count in currencies.DECIMALS.items()),
            "};",
            f"{whole}\nexport const WHOLE = {json.dumps(sorted(currencies.WHOLE))};",
        ]
    )


def _word_of(then: Then) -> str:
    return then.name.lower()


if __name__ == "__main__":
    FILE.write_text(wire_js(), encoding="utf-8")
