"""Who may sign in, and who may no longer. Knows the shared words and what is underneath; not presence, offers or HTTP.

accounts.py    accounts, made one by one or many together, and their passwords
passwords.py   what a password may be, and how it is hashed: sign-ins before everything else
revocations.py what is refused although its signature is good: a list in SQL, in each node's memory
sign_ins.py    where an account is signed in
"""
