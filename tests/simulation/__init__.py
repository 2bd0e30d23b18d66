"""A deterministic simulation: several nodes on a virtual clock, a seed for each history, and everything goes wrong.

    .venv/bin/python -m tests.simulation SEED          # replay one history, step by step
    .venv/bin/python -m tests.simulation FIRST COUNT   # look for histories that break a promise

Real are: dispatch, payments, refunds and the outbox with their SQL on the real schema, the clock that follows Redis, the hub
and its connections, and the handshake. Simulated is what is outside of a node; each thing asked of it is a step, before and after
which others act and the node may be killed. Read first: ``world.py``, then ``invariants.py``.

world.py        a seed's history              invariants.py   what must hold
ground.py       what all stand on             after_accept.py what must hold from accept to done
life.py         a node's steps and its end    node.py         the real parts of a node
misfortunes.py  what goes wrong               people.py       apps, pages, and operators
line.py         sockets that break
loop.py         time that jumps               clocks.py       time as a node sees it
chance.py       all that is random            __main__.py     replay
sql.py          SQL, in its two kinds         redis.py        deadlines, pub/sub, an outage
stripe.py       Stripe and its webhooks       test_models.py  the simulated Redis does what the real one does

What it does not cover, and the tests on real servers do: deadlocks and row locks of PostgreSQL (``sql.py`` says what of its
read committed is there), presence and its leases, Web Push, the bytes on sockets, Redis' replication, and Stripe's own API.
"""
