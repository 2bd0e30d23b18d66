"""What others build on: clients to copy, which import nothing of Pitlane. What they promise is written in ``docs/protocol.md``.

- ``python/``: one file for asyncio.
"""
