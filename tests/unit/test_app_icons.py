"""The app's icons are what ``http_api.pages.icons`` draws."""

import zlib

import pytest

from http_api.pages.icons import FOLDER, ICONS, Icon, png

SMALL = [icon for icon in ICONS if icon.pixels <= 192]
"""Those that are drawn in a moment; the large ones are the same shapes."""


def pixels(data: bytes) -> bytes:
    """Return the lines of a PNG file as we write them: one IDAT chunk. How well they are compressed differs between machines."""
    at = data.index(b"IDAT") + 4
    return zlib.decompress(data[at : data.index(b"IEND") - 8])


@pytest.mark.parametrize("icon", SMALL, ids=lambda icon: icon.name)
def test_the_kept_file_is_what_the_script_draws(icon: Icon):
    assert pixels((FOLDER / icon.name).read_bytes()) == pixels(png(icon)), "run python -m http_api.pages.icons"


def test_there_is_no_icon_that_nobody_draws():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(icon.name for icon in ICONS)
