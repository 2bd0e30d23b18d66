"""What a new password may be, and how passwords are kept: Argon2id, hashed a few at a time, sign-ins before everything else."""

import importlib.util
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from models.errors import Overloaded

LEN_MIN: Final = 8
"""Characters (NIST SP 800-63B-4 §3.1.1.2 has eight as the least)."""
BYTES_MAX: Final = 1024
"""In UTF-8. Argon2 takes more, and nobody means more."""
SIDE_BY_SIDE: Final = 2
"""Argon2 takes 64 MiB and a core for some 50 ms; more side by side would only slow everything else."""
SIGN_INS_WAITING_MAX: Final = 100
OTHERS_WAITING_MAX: Final = 50
"""Of either, on a slow machine, some seconds' worth."""

OTHERS_EVERY: Final = 8
"""Of so many turns one is for those who do not sign in, if they wait."""

T = TypeVar("T")
_hasher = PasswordHasher()


def refusal_of(password: str, *, email: str) -> str | None:
    """Return why an account must not have this password, as one sentence; ``None`` if it may. The first time takes some 10 ms."""
    if len(password) < LEN_MIN:
        return f"Needs at least {LEN_MIN} characters."
    if is_too_long(password):
        return f"Takes at most {BYTES_MAX} bytes."
    if password.strip().lower() == email.strip().lower():
        return "Must not be your e-mail address."
    if password.lower() in _commonest():
        return "This is one of the commonest passwords, and the first that others try; choose another one."
    return None


def is_too_long(password: str) -> bool:
    """Tell whether a password is longer than any that is kept. One with half a character (a lone surrogate) is, too."""
    try:
        return len(password.encode()) > BYTES_MAX
    except UnicodeEncodeError:
        return True


@cache
def _commonest() -> frozenset[str]:
    """The commonest passwords that are long enough, from the lists of zxcvbn.

    Of that package only the file with the lists is run: the whole of it would keep some 15 MB of tables for estimates in memory.
    """
    package = importlib.util.find_spec("zxcvbn")
    assert package is not None
    assert package.origin is not None
    spec = importlib.util.spec_from_file_location(
        "frequency_lists", Path(package.origin).with_name("frequency_lists.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return frozenset(one for one in module.FREQUENCY_LISTS["passwords"] if len(one) >= LEN_MIN)


@cache
def _nobodys() -> str:
    """A hash that no password matches on purpose, made when it is first needed: it costs what every hash costs."""
    return _hasher.hash("nobody's password")


def hashed(password: str) -> str:
    """Return the hash to keep; some 50 ms of work."""
    return _hasher.hash(password)


def matches(kept: str | None, password: str) -> bool:
    """Tell whether a password is the one that was hashed; takes as long without a hash, and is then ``False``."""
    try:
        _hasher.verify(kept or _nobodys(), password)
    except (VerificationError, InvalidHashError):
        return False
    return kept is not None


class Turns:
    """Whose turn it is: sign-ins before others, in the order in which they came. Pure."""

    def __init__(self, side_by_side: int, *, sign_ins_max: int, others_max: int) -> None:
        self._free = side_by_side
        self._ended = 0
        self._waiting: dict[bool, deque[Callable[[], None]]] = {True: deque(), False: deque()}
        self._max = {True: sign_ins_max, False: others_max}

    def ask(self, go: Callable[[], None], *, is_sign_in: bool) -> bool:
        """Have ``go`` called when it is one's turn, perhaps at once; ``False`` if too many wait already."""
        if self._free:
            self._free -= 1
            go()
        elif len(self._waiting[is_sign_in]) >= self._max[is_sign_in]:
            return False
        else:
            self._waiting[is_sign_in].append(go)
        return True

    def give_up(self, go: Callable[[], None]) -> bool:
        """Wait no longer; ``False`` if it is one's turn already, which is then to be ended."""
        for waiting in self._waiting.values():
            if go in waiting:
                waiting.remove(go)
                return True
        return False

    def end(self) -> None:
        """One's turn is over."""
        self._ended += 1
        # Every so often it is the others' turn, or a crowd that signs in would keep everybody from choosing a new password.
        sign_ins_first = self._ended % OTHERS_EVERY != 0
        for is_sign_in in (sign_ins_first, not sign_ins_first):
            if self._waiting[is_sign_in]:
                self._waiting[is_sign_in].popleft()()
                return
        self._free += 1


class Hashing:
    """Works on passwords in threads of its own number, each when it is its turn."""

    def __init__(self) -> None:
        self._turns = Turns(SIDE_BY_SIDE, sign_ins_max=SIGN_INS_WAITING_MAX, others_max=OTHERS_WAITING_MAX)
        self._threads = anyio.CapacityLimiter(SIDE_BY_SIDE)

    async def run(self, work: Callable[[], T], *, is_sign_in: bool = False) -> T:
        """Return what ``work`` does in a thread. Raises ``Overloaded`` if too many wait for the same."""
        turn = anyio.Event()
        if not self._turns.ask(turn.set, is_sign_in=is_sign_in):
            raise Overloaded("Too many people are signing in or up just now.")
        try:
            await turn.wait()
        except BaseException:
            if not self._turns.give_up(turn.set):
                self._turns.end()
            raise
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._threads)
        finally:
            self._turns.end()
