"""A stand-in for Stripe, reached through the real SDK over HTTP: for machines without a Stripe key.

Every node of an installation mounts its own stand-in over the same database. Read first: ``api.py``.

standin.py      the whole of it, for ``run.py``           api.py          routes under /v1, idempotency
pages.py        the hosted payment page                   html.py         what that page looks like (pure)
money_pages.py  what is played after a payment            money_html.py   what that page looks like (pure)
money.py        refunds, disputes, and faults             store.py        all tables, and Sessions and events
params.py       what Stripe refuses (pure)                objects.py      what it answers (pure)
webhooks.py     signing and delivery
"""
