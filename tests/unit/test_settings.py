"""Every setting is documented, with the default that it has."""

import re
from pathlib import Path

from models.settings import Settings

PAGE = Path(__file__).parent.parent.parent / "docs" / "settings.md"


def documented() -> list[tuple[str, str]]:
    """Return the name and the default of each row of the page's table."""
    return re.findall(r"^\| `PITLANE_(\w+)` \| (.+?) \|", PAGE.read_text(), re.MULTILINE)


def test_every_setting_has_its_row_in_the_order_in_which_it_is_declared() -> None:
    assert [name for name, _ in documented()] == [name.upper() for name in Settings.model_fields]


def test_the_documented_defaults_are_those_that_are_taken() -> None:
    defaults = {name.upper(): field.default for name, field in Settings.model_fields.items()}
    for name, said in documented():
        # Where there is none, the row says in words what takes its place.
        is_words = not said.startswith("`")
        assert is_words if defaults[name] is None else said == f"`{defaults[name]}`", name
