"""What the doors need from the rest of the house, in one bundle."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from http_api.auth import Tickets, Tokens

if TYPE_CHECKING:
    from accounts.accounts import Accounts
    from dispatch.favorites import Favorites
    from dispatch.money.checkout import Checkouts
    from dispatch.money.payments import Payments
    from dispatch.money.plans import Plans
    from dispatch.push import Push
    from dispatch.reading import Reading
    from dispatch.service import Dispatch
    from infra.bus import Bus
    from infra.clock import RedisClock
    from infra.database import Database
    from infra.redis_link import RedisLink
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
