"""Look-ups that come together are read together, and nobody is given what was read before they asked."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from http_api.sockets.batches import BATCH_LEN_MAX, Batches
from models.errors import DatabaseUnavailable


class Library:
    """What can be looked up; keeps how it was asked, and may be closed for a while."""

    def __init__(self) -> None:
        self.reads: list[list[str]] = []
        self.edition = 1
        self.is_burning = False
        self.cursed: str | None = None
        """Whoever reads this key fails."""
        self.door = anyio.Event()
        self.door.set()

    async def read(self, keys: Collection[str]) -> dict[str, str]:
        self.reads.append(list(keys))
        edition = self.edition
        await self.door.wait()
        if self.is_burning:
            raise DatabaseUnavailable("smoke")
        if self.cursed in keys:
            raise KeyError("a bug")
        return {key: f"{key}, edition {edition}" for key in keys if key != "unknown"}


@asynccontextmanager
async def batches(library: Library) -> AsyncIterator[Batches[str]]:
    found = Batches(library.read)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(found.run)
        yield found
        tasks.cancel_scope.cancel()


async def test_those_who_come_while_a_read_is_under_way_are_read_together():
    library = Library()
    answers: dict[str, str | None] = {}
    async with batches(library) as looked_up:

        async def ask(key: str) -> None:
            answers[key] = await looked_up.get(key)

        async with anyio.create_task_group() as tasks:
            library.door = anyio.Event()
            tasks.start_soon(ask, "first")
            await wait_all_tasks_blocked()
            for number in range(BATCH_LEN_MAX + 1):
                tasks.start_soon(ask, str(number))
            tasks.start_soon(ask, "unknown")
            await wait_all_tasks_blocked()
            library.door.set()
    assert [len(keys) for keys in library.reads] == [1, BATCH_LEN_MAX, 2]
    assert answers["first"] == "first, edition 1"
    assert answers["unknown"] is None
    assert answers["7"] == "7, edition 1"


async def test_who_asks_during_a_read_gets_the_next_one_even_for_the_same_key():
    # Interleaving: the read has begun -> the world changes -> somebody asks for the same key.
    library = Library()
    answers: list[str | None] = []
    async with batches(library) as looked_up:

        async def ask() -> None:
            answers.append(await looked_up.get("key"))

        async with anyio.create_task_group() as tasks:
            library.door = anyio.Event()
            tasks.start_soon(ask)
            await wait_all_tasks_blocked()
            library.edition = 2
            tasks.start_soon(ask)
            await wait_all_tasks_blocked()
            library.door.set()
    assert answers == ["key, edition 1", "key, edition 2"]


async def test_a_failed_read_fails_for_everybody_in_it_and_the_next_one_succeeds():
    library = Library()
    async with batches(library) as looked_up:
        library.is_burning = True
        with pytest.raises(DatabaseUnavailable, match="smoke"):
            await looked_up.get("key")
        library.is_burning = False
        assert await looked_up.get("key") == "key, edition 1"


@pytest.mark.bugs_planted
async def test_a_key_that_no_read_survives_fails_alone():
    library = Library()
    library.cursed = "7"
    answers: dict[str, str | None] = {}
    async with batches(library) as looked_up:

        async def ask(key: str) -> None:
            if key == library.cursed:
                with pytest.raises(KeyError, match="a bug"):
                    await looked_up.get(key)
            else:
                answers[key] = await looked_up.get(key)

        keys = [str(number) for number in range(BATCH_LEN_MAX)]
        async with anyio.create_task_group() as tasks:
            for key in keys:
                tasks.start_soon(ask, key)
    assert answers == {key: f"{key}, edition 1" for key in keys if key != "7"}
    # By halves: at most two reads for each halving, not one for each key.
    assert len(library.reads) <= 2 * BATCH_LEN_MAX.bit_length() + 1
