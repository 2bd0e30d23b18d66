"""What the page about security says of our files is there to be looked up."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:tests|accounts|dispatch|http_api|infra|models)/[\w/.]+)`", PAGE))
    assert len(named) > 40
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
