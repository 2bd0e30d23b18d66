"""The sockets of one node: who opens one, what is said there, and what time does to it.

Read first: ``connection.py`` (what a socket does; its two kinds are ``mechanic.py`` and ``customer.py``), then ``hub.py``.

hub.py          all sockets of this node, and its loops       handshake.py    who may open one
connection.py   one synchronous object per socket             mechanic.py     a mechanic's
customer.py     a customer's                                  open_offers.py  what is sent until acknowledged
protocol.py     a lean WebSocket under uvicorn                frames.py       RFC 6455 (pure)
frame_rate.py   how many frames are sane (pure)               close_codes.py  why a socket was closed
batches.py      one look-up for many who ask                  asyncapi.py     the messages as a document
"""
