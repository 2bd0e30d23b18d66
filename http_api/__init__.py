"""The doors: REST, the pages and the sockets. Translates between HTTP and what ``dispatch`` and ``presence`` mean.

Read first: ``rest.py`` (what an operation is, and the one wrapper around all of them), then any ``routes_*.py``.

app.py               all routes, one ASGI app                 auth.py             tokens, cookie, origins, tickets
rest.py              the typed table of operations            problems.py         every refusal: code, status, title
routes_*.py          the operations, by noun                  login_limit.py      how often a password may be tried
openapi.py           the table as a document                  stripe_webhook.py   where Stripe tells us things
pages.py             the two pages and their files            health.py           for operators: alive, ready
metrics.py           for operators: numbers                   services.py         what all of these call

hub.py               this node's sockets, and its loops       socket_handshake.py who may open one
socket_protocol.py   a lean WebSocket under uvicorn           websocket_frames.py RFC 6455 (pure)
connection.py        what a socket does; its two kinds are mechanic_connection.py and customer_connection.py
open_offers.py       what is sent until acknowledged          batches.py          one look-up for many who ask
frame_rate.py        how many frames are sane (pure)          close_codes.py      why a socket was closed
asyncapi.py          the socket messages as a document        dashboard/          the browser's side, no build step
"""
