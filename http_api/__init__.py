"""The doors: REST, the sockets and the pages. Translates between HTTP and what ``dispatch`` and ``presence`` mean.

app.py       all doors as one ASGI app; start here       rest/        the typed table of operations
services.py  the parts that REST opens to the world      sockets/     who is connected, and what is said there
auth.py      tokens, origins, tickets                    pages/       what a browser opens
metrics.py   for operators: numbers                      cookies.py   the session's, and the device's
caller.py    from which address, by which scheme (pure)
known_browsers.py  who has signed in here before
edge/        connections before anybody knows whose they are
readiness.py whether this node can do its work
machine_numbers.py  the numbers of all worker processes together
"""
