"""What Pitlane brings along for a machine that has nothing else; only `run.py` knows these parts.

`redis_child.py` runs a Redis server as a child process; `stripe_standin/` speaks Stripe's API, shows its payment page
and signs its webhooks. Production refuses to start on either.
"""
