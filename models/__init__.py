"""The words that every other package shares; knows nobody.

Read first: ``wire.py`` (what travels on sockets), ``rest.py`` (what travels over REST) and ``tables.py`` (what SQL keeps).

ids.py         identifiers that sort by creation time     settings.py   the only reader of the environment
timestamps.py  instants on the wire                       errors.py     the shallow tree of what can break
clock.py       one clock for all nodes: Redis TIME        outcomes.py   expected outcomes that are not success
database.py    reading and writing SQL, of either kind    redis_link.py one Redis: connections, scripts, keys
bus.py         pub/sub that notices its own gaps          slot_map.py   where a Redis Cluster keeps what
accounts.py    who may sign in                            time.lua      the clock that judges deadlines
metrics.py     what operators can watch                   logs.py       one line per event
migrations/    the schema's history
"""
