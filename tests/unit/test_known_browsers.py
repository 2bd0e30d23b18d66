"""A browser that has signed in before is known again, by whichever key it was told, and nobody can say so of another."""

from http_api.cookies import DEVICE
from http_api.known_browsers import ACCOUNTS_MAX, KnownBrowsers

OLD, NEW = "o" * 32, "n" * 32


def cookie_of(browsers: KnownBrowsers, email: str, before: str = "") -> str:
    """Return the ``Cookie`` header of a browser after signing in."""
    return browsers.remembering(before, email).partition(";")[0]


def test_a_browser_is_known_for_who_has_signed_in_there_in_any_letter_case() -> None:
    browsers = KnownBrowsers([NEW])
    cookie = cookie_of(browsers, "Jo@Example.com")
    assert browsers.device_of(cookie, " jo@example.com") is not None
    assert browsers.device_of(cookie, "eve@example.com") is None
    assert browsers.device_of("", "jo@example.com") is None


def test_it_stays_the_same_browser_for_several_accounts_of_which_the_newest_are_kept() -> None:
    browsers = KnownBrowsers([NEW])
    cookie, devices = "", set()
    for number in range(ACCOUNTS_MAX + 1):
        cookie = cookie_of(browsers, f"{number}@example.com", cookie)
        devices.add(browsers.device_of(cookie, f"{number}@example.com"))
    assert len(devices) == 1
    assert browsers.device_of(cookie, "0@example.com") is None
    assert browsers.device_of(cookie, "1@example.com") in devices


def test_keys_are_rotated_and_one_that_is_gone_knows_nobody() -> None:
    told_before = cookie_of(KnownBrowsers([OLD]), "jo@example.com")
    rotating = KnownBrowsers([NEW, OLD])
    device = rotating.device_of(told_before, "jo@example.com")
    assert device is not None
    assert KnownBrowsers([NEW]).device_of(told_before, "jo@example.com") is None
    # With the next sign-in it is told by the new key, once, and is the same browser still.
    told_anew = cookie_of(rotating, "jo@example.com", told_before)
    assert KnownBrowsers([NEW]).device_of(told_anew, "jo@example.com") == device
    assert rotating.device_of(told_anew, "jo@example.com") == device


def test_what_was_changed_or_is_of_another_purpose_knows_nobody() -> None:
    browsers = KnownBrowsers([NEW])
    cookie = cookie_of(browsers, "jo@example.com")
    value, _, signature = cookie.removeprefix(f"{DEVICE}=").partition(".")
    odd = [f"{value}.", f".{signature}", f"{value}.{signature}0", f"{value}0.{signature}", "x", "\xe9.\xff", ".", '"']
    assert [browsers.device_of(f"{DEVICE}={one}", "jo@example.com") for one in odd] == [None] * len(odd)
    assert browsers.device_of(f"pitlane_session={value}.{signature}", "jo@example.com") is None


def test_it_names_no_address() -> None:
    value = cookie_of(KnownBrowsers([NEW]), "jo@example.com").partition("=")[2].partition(".")[0]
    assert b"jo" not in bytes.fromhex(value)
