"""What Pitlane brings along for a machine that has nothing else; only `run.py` knows these parts.

`redis_child.py` runs a Redis server as a child process, `workers.py` several server processes on one socket, and
`stripe_standin/` speaks Stripe's API, shows its payment page and signs its webhooks; production refuses to start on it.
"""
