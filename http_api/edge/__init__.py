"""The outermost edge: TCP connections before it is known who is at the other end, and what they may take.

A connection begins on the ``Doorstep``, which keeps bytes and nothing else until a request's head is whole. Then it is an
``HttpConnection`` (uvicorn's, with bounds); where it asks for a socket, ``http_api.sockets.protocol`` takes over. ``Connections``
knows all of them that have no socket yet: whom we wait for and until when, and who has to go when there are too many.

Read ``connections.py`` first.

connections.py  who is here without a socket, who is late, who has to go
doorstep.py     before the first head                      http.py      requests, within bounds
farewell.py     after a refusal, until it is read          refusals.py  what is said then
limits.py       the bounds
"""
