"""What can be seen of requests and offers, read from SQL; changes nothing.

reader.py   what sockets and REST show, for many accounts in a few queries; one account is a batch of one    start here
ops.py      what operators see
tally.py    how many there are of what is only added to
past_offers.py   what a mechanic was offered, and how that ended
hours_reader.py  how long a mechanic has worked, and what that earned
"""
