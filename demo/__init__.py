"""A stage with people on it, for ``run.py demo``: never imported by the server itself.

cast.py        who there is, and their past           start here
history.py     how a past comes into the database: by the very core that makes the present
characters.py  how a simulated mechanic decides       pure
mechanics.py   simulated mechanics, connected over the real socket
doors.py       one-click links that sign a browser in
room.py        where sessions take place, a stand-in; its page is room.html, room.js and room.css
banner.py      what the terminal says                 pure, but for its last step
service.py     the above as one part for ``run.py``
"""

from demo.room import furnished
from demo.service import Demo

__all__ = ["Demo", "furnished"]
