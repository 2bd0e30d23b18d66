"""What a password costs, and whom it keeps waiting: hashed for real, in threads."""

from functools import partial

import anyio
import pytest
from argon2 import PasswordHasher

from accounts.accounts import Accounts, NewAccount
from accounts.passwords import OTHERS_WAITING_MAX, SIDE_BY_SIDE, Hashing
from infra.database import Database
from models import tables
from models.errors import Overloaded
from models.outcomes import Refused
from models.words import Role
from tests.parts import PATIENCE_S

PASSWORD = "correct horse battery"


async def test_a_sign_in_is_next_however_many_register(database_url: str) -> None:
    database = Database(database_url)
    accounts = Accounts(database)
    await accounts.add(NewAccount(Role.CUSTOMER, "jo@example.com", "Jo", PASSWORD), now_ms=1)
    done: list[str] = []
    overloaded = 0

    async def register(number: int) -> None:
        nonlocal overloaded
        try:
            await accounts.add(NewAccount(Role.CUSTOMER, f"{number}@example.com", "Nia", PASSWORD), now_ms=1)
            done.append("registered")
        except Overloaded:
            overloaded += 1

    with anyio.fail_after(10 * PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for number in range(SIDE_BY_SIDE + OTHERS_WAITING_MAX + 5):
                tasks.start_soon(register, number)
            await anyio.wait_all_tasks_blocked()
            assert overloaded == 5
            assert await accounts.sign_in("jo@example.com", PASSWORD) is not None
            # Those whose hashes were under way, and at most as many who were next before the account was found.
            assert len(done) <= 2 * SIDE_BY_SIDE
            tasks.cancel_scope.cancel()
        # Whoever has left has left no gap.
        assert await accounts.sign_in("jo@example.com", PASSWORD) is not None
    await database.close()


async def test_work_that_fails_or_is_left_gives_its_turn_back() -> None:
    hashing = Hashing()
    with anyio.fail_after(PATIENCE_S):
        for _ in range(2 * SIDE_BY_SIDE):
            with pytest.raises(ZeroDivisionError):
                await hashing.run(lambda: 1 // 0)
        for _ in range(2 * SIDE_BY_SIDE):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await hashing.run(lambda: 1)
        assert await hashing.run(lambda: 1) == 1


async def test_who_is_unknown_disabled_or_without_a_password_costs_what_a_wrong_password_costs(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(database_url)
    accounts = Accounts(database)
    for name, password in (("known", PASSWORD), ("disabled", PASSWORD), ("by-token", None)):
        added = await accounts.add(NewAccount(Role.CUSTOMER, f"{name}@example.com", "Jo", password), now_ms=1)
        assert not isinstance(added, Refused)
        if name == "disabled":
            await accounts.set_disabled(added.id, True, now_ms=2)
    await accounts.sign_in("known@example.com", PASSWORD)
    costs: list[tuple[int, int]] = []
    verify = PasswordHasher.verify

    def counted(hasher: PasswordHasher, kept: str, password: str) -> bool:
        # As much memory and as many rounds: nothing else of a hash decides how long it takes.
        costs.append((len(kept), hasher.time_cost * hasher.memory_cost))
        return verify(hasher, kept, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    wrong = ["known", "disabled", "by-token", "nobody"]
    tried = [partial(accounts.sign_in, f"{name}@example.com") for name in wrong]
    for guess in ("wrong password", "x" * 2_000, ""):
        assert [await attempt(guess) for attempt in tried] == [None] * len(wrong)
    assert len(costs) == 3 * len(wrong)
    assert len(set(costs)) == 1
    assert isinstance(await accounts.sign_in("disabled@example.com", PASSWORD), tables.Account)
    await database.close()
