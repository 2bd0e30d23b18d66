"""From a plan to a paid request, and back when nobody serves it. Knows requests; requests know only that money is owed.

Read first: ``fulfilment.py``, what a paid Session means for us, and ``ledger.py``, what became of the money afterwards.

fulfilment.py     what a paid Session means (pure)     payments.py       from money to one request
checkout.py       what to pay, and the page for it     superseded.py     older pages for the same choice
plans.py          what can be bought                   refunds.py        money on its way back
ledger.py         what became of a payment (pure)      bookkeeping.py    the ledger says what Stripe says
stripe_api.py     Stripe through its SDK               stripe_events.py  its webhooks, stored first
reconciler.py     what Stripe knows and we have missed unfinished_refunds.py  what operators see of it
"""
