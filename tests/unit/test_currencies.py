"""Amounts are written with the decimals that Stripe charges by, in Python and in JavaScript alike."""

import json
import subprocess
from pathlib import Path

import pytest

from models.currencies import DECIMALS, WHOLE, money
from tests.deno_program import AS_IT_STANDS, deno, deno_environment

ROOT = Path(__file__).parents[2]
USUAL = (
    *(
        "aed",
        "all",
        "amd",
        "aud",
        "bgn",
        "brl",
        "cad",
        "chf",
        "cny",
        "cop",
        "czk",
        "dkk",
        "eur",
        "gbp",
        "hkd",
        "huf",
        "idr",
    ),
    *(
        "ils",
        "inr",
        "kes",
        "lak",
        "lbp",
        "mmk",
        "mxn",
        "myr",
        "ngn",
        "nok",
        "nzd",
        "php",
        "pkr",
        "pln",
        "rsd",
        "sek",
        "sgd",
    ),
    *("sos", "thb", "try", "twd", "tzs", "uah", "usd", "uzs", "xcd", "yer", "zar"),
)
"""Some with the usual two decimals, those among them of which browsers think otherwise."""
EVERY = (*USUAL, *DECIMALS, *WHOLE)
AMOUNTS = (0, 5, 10, 999, 1_500, 50_000, 123_456_789, -2_999)


@pytest.mark.parametrize(
    ("amount", "currency", "written"),
    [
        (2_999, "usd", "$29.99"),
        (123_456_700, "EUR", "€1,234,567.00"),
        (0, "gbp", "£0.00"),
        (1_500, "jpy", "¥1,500"),
        (9_990, "kwd", "KWD 9.990"),
        (5, "bhd", "BHD 0.005"),
        # Browsers show neither decimals, a hundred times the price.
        (199_050, "rsd", "RSD 1,990.50"),
        # Charged in whole ones alone, and counted in hundredths; should a fraction come about, it is not hidden.
        (50_000, "isk", "ISK 500"),
        (500, "ugx", "UGX 5"),
        (550, "ugx", "UGX 5.50"),
        # Paid out in whole ones alone, and charged in any.
        (1_045, "huf", "HUF 10.45"),
        (80_045, "twd", "NT$800.45"),
        (-500, "cad", "-CA$5.00"),
    ],
)
def test_an_amount_is_written_as_it_is_charged(amount: int, currency: str, written: str) -> None:
    assert money(amount, currency) == written.replace(" ", "\N{NO-BREAK SPACE}")


def test_python_and_javascript_write_the_same(request: pytest.FixtureRequest) -> None:
    assert request.config.cache is not None
    client = (ROOT / "clients" / "javascript" / "pitlane.js").as_uri()
    cases = json.dumps([[amount, currency] for currency in EVERY for amount in AMOUNTS])
    program = f"""
        import {{ money }} from "{client}";
        console.log(JSON.stringify({cases}.map(([amount, currency]) => money(amount, currency, "en-US"))));
    """
    ran = subprocess.run(
        deno("run", *AS_IT_STANDS, "-"),
        env=deno_environment(request.config.cache.mkdir("deno")),
        input=program,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [money(amount, currency) for currency in EVERY for amount in AMOUNTS]
