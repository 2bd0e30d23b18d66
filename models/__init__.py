"""The words that every other package shares; knows nobody.

Read first: ``wire.py`` (what travels on sockets), ``rest.py`` (what travels over REST) and ``tables.py`` (what SQL keeps).

ids.py        identifiers that sort by creation time        settings.py   the only reader of the environment
timestamps.py instants on the wire                          errors.py     the shallow tree of what can break
clock.py      one clock for all nodes: Redis TIME           database.py   reading and writing SQL, SQLite or PostgreSQL
redis_link.py one Redis connection pool, scripts, keys      bus.py        pub/sub between nodes that notices its own gaps
accounts.py   who may sign in                               migrations/   the schema's history
"""
