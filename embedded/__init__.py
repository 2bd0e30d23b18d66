"""What Pitlane brings along for a machine that has nothing else; only `run.py` knows these parts.

`redis_servers.py` finds a Redis server, `redis_child.py` runs it as a child process, `workers.py` several server processes
on one socket, and `stripe_standin/` speaks Stripe's API, shows its payment page and signs its webhooks; production refuses
to start on it.
"""
