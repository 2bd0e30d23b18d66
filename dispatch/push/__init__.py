"""Waking an app that nobody looks at: Web Push (RFC 8030). Knows requests; requests know only that somebody may have to be woken.

Read first: ``rules.py``, when an offer is pushed and what an answer means.

rules.py     who is woken when, and what an answer means (pure)   sealing.py         one message, sealed and signed (pure)
planner.py   what is to be pushed becomes messages in SQL         sender.py          messages on their way
road.py      the way to a push service that a stranger named      subscriptions.py   the browsers that can be woken
vapid.py     who we are to push services                          updates.py         what a customer is woken for
pages.py     whether a customer has a page open                    bell.py            there are new messages
sql/         what is asked of SQL
"""
