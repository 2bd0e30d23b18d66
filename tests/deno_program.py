"""Deno, which runs the pages' and the client's modules without a browser, and knows their types."""

import os
from pathlib import Path

from deno import find_deno_bin

LOCAL = ("--quiet", "--no-lock", "--no-remote", "--no-npm")
"""Nothing is fetched, and nothing is written beside the files."""
AS_IT_STANDS = (*LOCAL, "--no-config", "--no-check", "--allow-net=127.0.0.1")
"""Run it without looking at its types; it may talk to this machine."""


def deno(*arguments: str | Path) -> list[str]:
    """Return the command line."""
    return [find_deno_bin(), *map(str, arguments)]


def deno_environment(cache: Path, **variables: str) -> dict[str, str]:
    """Return its environment; what it has compiled is kept in ``cache``."""
    own = {"DENO_DIR": str(cache), "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1", "TZ": "UTC"}
    return {**os.environ, **own, **variables}
