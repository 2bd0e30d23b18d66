"""The operations, by noun.

accounts.py     signing in and out           checkout.py        buying
mechanics.py    who is there                 requests.py        what becomes of what was bought
favorites.py    whom a customer trusts       offers.py          what a mechanic may take
preferences.py  what a mechanic has chosen
hours.py        how long a mechanic worked
own_account.py  one's name and devices       passwords.py    changed, forgotten, set anew
push.py         waking an app                tickets.py         opening a socket without a header
ops.py          for operators                health.py          for load balancers: alive, ready, numbers
stripe_webhook.py  where Stripe tells us things
"""
