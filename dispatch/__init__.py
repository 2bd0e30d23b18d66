"""Who gets a request, until when, and what happens to the money. Knows presence and the shared words; not HTTP.

Read first: ``request.py``, the pure life of a request; everything else carries out what it decides.

request.py        the state machine (pure)            request_store.py  one transaction per transition
service.py        what mechanics, customers and time do     telling.py  whom to tell what was committed
deadlines.py      Redis-keyed windows that end on time
outbox.py         telling whom, after the commit      deliveries.py     what nodes tell each other's sockets
payments.py       checkout and fulfilment             refunds.py        money on its way back
favorites.py      whom a customer trusts              plans.py          what can be bought
push.py           waking an app that is not connected views.py          what clients see of a request
"""
