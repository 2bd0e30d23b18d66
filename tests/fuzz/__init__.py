"""Calls that nobody means, made by chance from a seed, until something breaks.

    .venv/bin/python -m tests.fuzz.api 7 5      # the calls of seed 7, for five minutes

api.py   every operation of the published document, with each role
"""
