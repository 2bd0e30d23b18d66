"""REST: a table of typed operations, one wrapper around all of them, and the document made from both.

Read first: ``operation.py`` (what an operation is), then any file of ``routes/``, which holds them by noun.

operation.py    what an operation is                          checks.py       who asks, whether they may, and what
resource.py     the one wrapper around all of them            openapi.py      the table as a document
problems.py     every refusal: code, status, title            login_limit.py  how often a password may be tried
signing_in.py   the answer to who has proved who they are     rate_limit.py   how often something may be done
login_begin.lua, login_end.lua   the two halves of a try      routes/         the operations
"""
