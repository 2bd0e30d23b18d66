"""REST: a table of typed operations, one wrapper around all of them, and the document made from both.

Read first: ``operation.py`` (what an operation is), then any file of ``routes/``, which holds them by noun.

operation.py    what an operation is, and the one wrapper     openapi.py      the table as a document
problems.py     every refusal: code, status, title            login_limit.py  how often a password may be tried
login_begin.lua, login_end.lua   the two halves of a try      routes/         the operations
"""
