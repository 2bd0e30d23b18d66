"""What the app's worker keeps for when there is no connection, and the version of that: a hash of what it is.

The worker is one of the files in ``browser/``; the line of it that begins with ``const KEPT`` is written anew as it is served. So
its bytes change when anything that it keeps does, and a browser that finds the bytes changed installs the worker anew.
"""

import hashlib
import re
from pathlib import Path
from typing import Final

import msgspec

WORKER: Final = "worker.js"
FILES: Final = ("offline.html", "offline.js", "theme.css", "icons.css", "favicon.svg")
"""The page for no connection, and all that it shows. Nothing of the app itself: an old page must never meet a newer server."""

_LINE: Final = re.compile(r"^const KEPT = .*$", re.MULTILINE)


def worker(browser: Path) -> str:
    """Return the worker's source, with what it keeps of the folder ``browser``."""
    contents = hashlib.sha256()
    for name in FILES:
        contents.update(hashlib.sha256((browser / name).read_bytes()).digest())
    kept = {"version": contents.hexdigest()[:16], "files": [f"/static/{name}" for name in FILES]}
    source, count = _LINE.subn(f"const KEPT = {msgspec.json.encode(kept).decode()};", (browser / WORKER).read_text())
    assert count == 1, f"{WORKER} has one line that says what is kept"
    return source
