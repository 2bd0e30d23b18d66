"""Who may sign in. Knows the shared words and what is underneath; not presence, offers or HTTP.

accounts.py    accounts, made one by one or many together, and their passwords
"""
