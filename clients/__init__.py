"""What others build on: clients to copy, which import nothing of Pitlane. What they promise is written in ``docs/protocol.md``.

- ``python/``: one file for asyncio.
- ``javascript/``: ES modules for browsers, Node and Deno, which the pages use as well; its ``README.md`` shows how.
"""
