"""Who is here: leases in Redis, facts from SQL, and whoever wants to know. Knows the shared words only; not offers, not HTTP.

Read first: ``liveness.py``, the rules as functions of values; the Lua files carry them out inside Redis, one script one step.

liveness.py   what a status is, when it changes (pure)     service.py   presence on one node, for everybody else
shard.py      a part of the mechanics: flush and sweep      leases.py    one Redis round trip per step, all keys
watch.py      who on this node wants to know of whom       facts.py     duty, session, push and last_seen in SQL
responses.py  how mechanics usually answer, from SQL

status.lua    shared by the three that announce            renew.lua        heartbeats and joins of a node
release.lua   the last socket of a mechanic here closed    sweep.lua        what has lapsed, also of a node that died
facts.lua     facts from SQL, never older over newer       renew_node.lua   the node's own lease
                                                           retire_node.lua  a node that stops in good order
"""
