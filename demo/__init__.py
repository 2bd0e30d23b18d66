"""A stage with people on it, for ``run.py demo``: never imported by the server itself.

cast.py        who there is, and their past           start here
history.py     how a past comes into the database: by the very core that makes the present
characters.py  how a simulated mechanic decides       pure
mechanics.py   simulated mechanics, connected over the real socket
doors.py       one-click links that sign a browser in
banner.py      what the terminal says                 pure
service.py     the above as one part for ``run.py``
"""

from demo.service import Demo

__all__ = ["Demo"]
