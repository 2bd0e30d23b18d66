"""The benchmarks, for ``run.py bench``: real servers, real sockets, and what others would use in the same run.

command.py      what the command line asks for                start here
options.py      how much of it
presence.py     memory, heartbeats, status changes, new connections
soak.py         as many mechanics as one process takes, for minutes
dispatch.py     windows that end together, one broadcast for everybody, accepts
transitions.py  one of each alone, as many as a core bears, and half of that
webhook.py      Stripe's events, many in a second
hostile.py      ten thousand hostile connections, and somebody who is signed in
strangers.py    those connections, as a process of their own
frame_fuzz.py   odd frames on both sockets, for minutes

contenders.py   Pitlane and its peers: how each is started and spoken to
dialects.py     the words of each on the socket (pure)
sockets.py      the load generator: thousands of sockets in one process
http_load.py    the load generator for REST calls
seeds.py        accounts and requests, made by the product's own code; SQLite and PostgreSQL
meters.py       what processes and Redis have used; samples
cores.py        which process runs on which core
report.py       tables, and their place in docs/benchmarks.md

peers/          small programs for what we are compared with; they run in ``.venv-bench`` and import nothing of ours

Nothing here judges by time: a benchmark fails when something does not happen, never when it is slow.
"""
