"""Amounts of money, as Stripe counts them and as people read them. Pure.

An amount is a whole number of what Stripe counts a currency in, under names that end in ``_cents`` whatever the currency is:
cents of a dollar, whole yen, thousandths of a dinar. How many of its digits are decimals is Stripe's table for charges and not
ISO 4217's (docs.stripe.com/currencies); browsers know yet another one, by which some are shown as a hundred times what is charged.
"""

import re
from collections.abc import Mapping
from typing import Final

DECIMALS_USUAL: Final = 2
DECIMALS: Final[Mapping[str, int]] = {
    **dict.fromkeys(
        ("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"), 0
    ),
    # Stripe takes these in tens: the last digit has to be a nought.
    **dict.fromkeys(("bhd", "jod", "kwd", "omr", "tnd"), 3),
}
"""How many decimals the amounts of a currency have, where that is not ``DECIMALS_USUAL``. Forints and Taiwan dollars have the
usual two when they are charged; only what Stripe pays out of them is whole."""
WHOLE: Final = frozenset(("isk", "ugx"))
"""Counted in hundredths for the sake of older programs, and never charged but in whole ones: 500 is five krónur."""
LEAST_CHARGED: Final[Mapping[str, int]] = {
    **dict.fromkeys(("usd", "ars", "aud", "brl", "cad", "chf", "cop", "eur", "idr", "ils", "inr", "jpy"), 50),
    **dict.fromkeys(("krw", "nzd", "php", "rub", "sgd", "zar"), 50),
    "aed": 200,
    "czk": 1500,
    "dkk": 250,
    "gbp": 30,
    "hkd": 400,
    "huf": 17500,
    "mxn": 1000,
    "myr": 200,
    "nok": 300,
    "pln": 200,
    "ron": 200,
    "sek": 300,
    "thb": 1000,
}
"""The least that Stripe charges in a currency (docs.stripe.com/currencies); of all others a unit of it at most."""
AMOUNT_MAX: Final = 99_999_999
CODE: Final = re.compile(r"[a-z]{3}")
_SIGNS: Final[Mapping[str, str]] = {
    "usd": "$", "eur": "€", "gbp": "£", "jpy": "¥", "cny": "CN¥", "inr": "₹", "ils": "₪", "krw": "₩", "php": "₱", "vnd": "₫",
    "aud": "A$", "brl": "R$", "cad": "CA$", "hkd": "HK$", "mxn": "MX$", "nzd": "NZ$", "twd": "NT$", "xcd": "EC$",
    "xaf": "FCFA\N{NO-BREAK SPACE}", "xof": "F\N{NARROW NO-BREAK SPACE}CFA\N{NO-BREAK SPACE}", "xpf": "CFPF\N{NO-BREAK SPACE}",
}  # fmt: skip
"""As they are written in English; of all others the code is."""


def money(amount: int, currency: str) -> str:
    """Return an amount as people read it: ``$29.99``, ``¥1,500``, ``KWD 9.990``.

    ``currency`` is Stripe's code, in any case. ``money`` of the JavaScript client writes the same.
    """
    code = currency.lower()
    decimals = DECIMALS.get(code, DECIMALS_USUAL)
    whole, rest = divmod(abs(amount), 10**decimals)
    is_whole = decimals == 0 or (code in WHOLE and rest == 0)
    sign = _SIGNS.get(code, f"{code.upper()}\N{NO-BREAK SPACE}")
    return f"{'-' if amount < 0 else ''}{sign}{whole:,}{'' if is_whole else f'.{rest:0{decimals}}'}"


def why_not_charged(amount: int, currency: str) -> str | None:
    """Return why Stripe would not charge this, as half a sentence; ``None`` if it would, and for nothing at all, which is free.

    ``currency`` is Stripe's code, in lower case.
    """
    if not CODE.fullmatch(currency):
        return f"{currency!r} is no currency; Stripe writes them as usd or eur"
    if amount == 0:
        return None
    least = LEAST_CHARGED.get(currency, 1)
    if not least <= amount <= AMOUNT_MAX:
        return f"Stripe charges from {money(least, currency)} to {money(AMOUNT_MAX, currency)}"
    step = 100 if currency in WHOLE else 10 if DECIMALS.get(currency) == 3 else 1
    if amount % step:
        return f"Stripe charges {currency} in steps of {step}"
    return None
