"""The sockets of one node: who opens one, what is said there, and what time does to it.

Read first: ``connection.py`` (what a socket does; its two kinds are ``mechanic.py`` and ``customer.py``), then ``hub.py``.

hub.py           all sockets of this node, and what time does   handshake.py    who may open one
connection.py    one synchronous object per socket              mechanic.py     a mechanic's
customer.py      a customer's                                   shown_offers.py  what is sent until acknowledged
tables.py        who is connected, by account                   inbox.py        what the other nodes have to say
jobs.py          what takes a while                             stale.py        who may have missed a change
batches.py       one look-up for many who ask                   shared_frames.py  one frame for many sockets
protocol.py      a lean WebSocket under uvicorn                 frames.py       RFC 6455 (pure)
frame_rate.py    how many frames are sane (pure)                close_codes.py  why a socket was closed
asyncapi.py      the messages as a document                     examples.py     one of each message
places.py        how many sockets an account may have    numbers.py      for operators
"""
