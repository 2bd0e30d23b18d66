"""The words that every other package shares; knows nobody.

Read first: ``wire.py`` (what travels on sockets), ``rest.py`` (what travels over REST) and ``tables.py`` (what SQL keeps).

ids.py         identifiers that sort by creation time     settings.py   the only reader of the environment
timestamps.py  instants on the wire                       redis_url.py  what names a Redis Cluster
errors.py      the shallow tree of what can break         outcomes.py   expected outcomes that are not success
migrations/    the schema's history
"""
