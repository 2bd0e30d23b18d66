"""Amounts of money, as Stripe counts them and as people read them. Pure.

An amount is a whole number of what Stripe counts a currency in, under names that end in ``_cents`` whatever the currency is:
cents of a dollar, whole yen, thousandths of a dinar. How many of its digits are decimals is Stripe's table for charges and not
ISO 4217's (docs.stripe.com/currencies); browsers know yet another one, by which some are shown as a hundred times what is charged.
"""

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
