"""The doors: REST, the sockets and the pages. Translates between HTTP and what ``dispatch`` and ``presence`` mean.

app.py       all doors as one ASGI app; start here       rest/        the typed table of operations
services.py  the parts that REST opens to the world      sockets/     who is connected, and what is said there
auth.py      tokens, cookie, origins, tickets            pages/       what a browser opens
metrics.py   for operators: numbers
"""
