"""The client for Python, in one file that can be copied.

- ``pitlane_client.py``: a mechanic's app and a customer's, over socket and REST.
"""
