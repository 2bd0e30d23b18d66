"""Who gets a request, until when, and what happens to the money. Knows presence and the shared words; not HTTP.

Read first: ``request.py``, the pure life of a request; everything else carries out what it decides.

request.py        the state machine (pure)             request_store.py  one transaction per transition
effects.py        what else a transition writes        service.py        what people do to requests
elapsing.py       what time does to requests           showing.py        a request as each of those sees it who may
awaited.py        favourites who become busy           views.py          rows become what clients see (pure)
departures.py     what disabled accounts hold goes on  erasure.py        what is forgotten of an erased account
stored.py         a request with all that is seen of it reading/          what can be seen of it all
eligibility.py    who may get a broadcast (pure)       preferences.py    what a mechanic chooses to take
duty.py           on duty, off, and breaks             hours.py          days of work, cut and summed (pure)
deadlines.py      windows that end on time, by Redis   outbox.py         what a commit leaves to tell
notices.py        the kinds of what is left to tell    telling.py        whom to tell it, and how
due_work.py       what is due, side by side            leased_rows.py    rows that any node may work on
failures.py       what fails is counted, and set aside push/             waking an app nobody looks at
deliveries.py     what nodes tell each other's sockets favorites.py      whom a customer trusts
assembly.py       how all these are put together       money/            checkouts, payments, refunds, Stripe
sql/              what is asked of SQL often           responses.py      how mechanics usually answer
retention.py      what is forgotten after a while
"""
