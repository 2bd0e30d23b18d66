"""What the ``stripe`` package that is installed declares of Stripe's objects; it is generated from Stripe's own description."""

import inspect
import typing
from typing import Any

import stripe


def declared(kind: type) -> dict[str, Any]:
    """Return the members that a resource class declares."""
    members: dict[str, Any] = {}
    for one in reversed(kind.__mro__):
        members |= inspect.get_annotations(one)
    return {name: annotation for name, annotation in members.items() if not name.startswith("_")}


def assert_declared(answer: dict[str, Any], kind: type[stripe.StripeObject]) -> None:
    """Require that the stand-in's answer has what the class declares as always there, and nothing that it does not know.

    So do the objects inside of it; and words are among those that the class lists.
    """
    members = declared(kind)
    always = {name for name, one in members.items() if type(None) not in typing.get_args(one)}
    always -= {name for name in always if typing.get_origin(members[name]) is typing.ClassVar}
    assert answer.keys() - members.keys() == set(), kind
    assert always - answer.keys() == set(), kind
    for name, value in answer.items():
        inner = kind._inner_class_types.get(name)
        if inner is not None:
            for one in value if isinstance(value, list) else [value] if value is not None else []:
                assert_declared(one, inner)
        elif isinstance(value, str) and (words := _words(members[name])):
            assert value in words, (kind, name)


def _words(annotation: Any) -> set[str]:
    """Return the words that a member may be, if the class lists them."""
    if typing.get_origin(annotation) is typing.Literal:
        return set(typing.get_args(annotation))
    inner = [_words(one) for one in typing.get_args(annotation) if one not in (str, type(None))]
    return set.union(*inner) if inner and all(inner) else set()
