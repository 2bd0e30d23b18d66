"""The words that every other package shares; knows nobody.

Read first: ``wire.py`` (what travels on sockets), ``rest.py`` (what travels over REST) and ``tables.py`` (what SQL keeps).

words.py       the words of a request's life              settings.py   the only reader of the environment
ids.py         identifiers that sort by creation time     redis_url.py  what names a Redis Cluster
session_types.py  which kinds of session a mechanic takes
text.py        what people write, as it is kept           currencies.py  amounts of money, as people read them
timestamps.py  instants on the wire                       outcomes.py   expected outcomes that are not success
errors.py      the shallow tree of what can break         networks.py   addresses and networks
migrations/    the schema's history
"""
