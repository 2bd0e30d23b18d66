"""Why a socket was closed, and what its client should do next: one table, published with the AsyncAPI document."""

from dataclasses import dataclass
from enum import StrEnum

NOT_TEXT = 1003
BAD_TEXT = 1007
TOO_MANY = 1008
TOO_BIG = 1009
BUG = 1011
RESTARTING = 1012
TRY_LATER = 1013
TOKEN_EXPIRED = 4401
SILENT = 4408

GONE = 1006
"""What we note when the connection was lost without a close frame; never sent."""


class Then(StrEnum):
    """What a client should do after a close."""

    RECONNECT = "reconnect with jittered back-off"
    RECONNECT_SPREAD = "reconnect with jittered back-off, the first try within seconds: all were sent away together"
    RECONNECT_SLOWLY = "reconnect after a long, jittered back-off: hurrying back would only repeat it"
    SIGN_IN = "sign in again, then reconnect"
    FIX = "mend the client: the same frame would be refused again; until then reconnect only after a long, jittered back-off"


@dataclass(frozen=True)
class CloseCode:
    """One reason for a close. ``then``: what the client should do."""

    code: int
    meaning: str
    then: Then


CLOSE_CODES = (
    CloseCode(1002, "a frame broke RFC 6455", Then.FIX),
    CloseCode(NOT_TEXT, "a binary frame; messages are JSON in text frames", Then.FIX),
    CloseCode(BAD_TEXT, "a text frame that is not UTF-8", Then.FIX),
    CloseCode(TOO_MANY, "too many frames, or too many things in hand", Then.RECONNECT_SLOWLY),
    CloseCode(TOO_BIG, "a message longer than 16 KiB", Then.FIX),
    CloseCode(BUG, "something went wrong on our side", Then.RECONNECT),
    CloseCode(RESTARTING, "the server drains: it is about to restart", Then.RECONNECT_SPREAD),
    CloseCode(TRY_LATER, "the snapshot could not be read; the database or Redis does not answer", Then.RECONNECT),
    CloseCode(TOKEN_EXPIRED, "the token has expired or was revoked", Then.SIGN_IN),
    CloseCode(SILENT, "nothing was heard for the presence time-out", Then.RECONNECT),
)
