"""What is underneath: SQL, Redis, the bus, the clock, and what operators read. Knows the shared words, and no business.

Read first: ``database.py`` and ``redis_link.py``.

database.py    reading and writing SQL, of either kind    migrations.py  bringing a database to the newest schema
statements.py  SQL in files, and transactions made of it  drivers.py     running those on SQLite and PostgreSQL
redis_link.py  one Redis: connections, scripts, keys      slot_map.py    where a Redis Cluster keeps what (pure)
clock.py       one clock for all nodes: Redis TIME        time.lua       the clock that judges deadlines
bus.py         pub/sub that notices its own gaps          logs.py        one line per event
metrics.py     what operators can watch                   loops.py       loops that outlive their own bugs
private_files.py  the installation's files are its owner's alone
backups.py     the embedded database as one file, and back
slices.py      something for many, each alone, a few at a time
mail.py        e-mail, in a lane of its own
backlog.py     what waits for one loop, bounded           seldom.py      log lines that strangers can cause at will
open_files.py  how many connections there is room for
"""
