"""What the doors need from the rest of the house, in one bundle."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from http_api.auth import Tickets, Tokens

if TYPE_CHECKING:
    from dispatch.checkout import Checkouts
    from dispatch.favorites import Favorites
    from dispatch.payments import Payments
    from dispatch.plans import Plans
    from dispatch.push import Push
    from dispatch.reading import Reading
    from dispatch.service import Dispatch
    from models.accounts import Accounts
    from models.bus import Bus
    from models.clock import RedisClock
    from models.database import Database
    from models.redis_link import RedisLink
    from models.settings import DoorSettings
    from presence.service import Presence


@dataclass(frozen=True)
class Services:
    """Everything that routes and sockets call; made once by ``run.py``."""

    settings: "DoorSettings"
    database: "Database"
    link: "RedisLink"
    bus: "Bus"
    clock: "RedisClock"
    accounts: "Accounts"
    presence: "Presence"
    dispatch: "Dispatch"
    reading: "Reading"
    checkouts: "Checkouts"
    payments: "Payments"
    favorites: "Favorites"
    plans: "Plans"
    push: "Push"
    node_id: str
    tokens: Tokens
    tickets: Tickets
