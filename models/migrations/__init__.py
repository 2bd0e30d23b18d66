"""The schema's history; ``infra.migrations`` brings a database to its newest page.

``versions/`` holds one file per change, each able to run on SQLite and on PostgreSQL. A test compares what they build
with ``models.tables``.
"""
