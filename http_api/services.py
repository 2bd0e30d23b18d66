"""The parts of the house that the REST interface opens to the world, as ``run.py`` hands them over; ``app.py`` unpacks them."""

from dataclasses import dataclass

from accounts.accounts import Accounts
from accounts.revocations import Revocations
from accounts.sign_ins import SignIns
from dispatch.departures import Departures
from dispatch.erasure import Erasure
from dispatch.favorites import Favorites
from dispatch.money.checkout import Checkouts
from dispatch.money.payments import Payments
from dispatch.money.plans import Plans
from dispatch.money.refunds import Refunds
from dispatch.preferences import Preferences
from dispatch.push.subscriptions import Subscriptions
from dispatch.push.vapid import Vapid
from dispatch.reading.hours_reader import HoursReader
from dispatch.reading.ops import OpsReader
from dispatch.reading.past_offers import PastOffersReader
from dispatch.reading.reader import Reader
from dispatch.service import Dispatch
from http_api.auth import Tickets, Tokens
from http_api.machine_numbers import MachineNumbers
from http_api.rest.routes.passwords import ForgottenPasswords
from http_api.rest.signing_in import SigningIn
from infra.clock import Clock
from infra.database import Database
from infra.redis_link import RedisLink
from models.settings import DoorSettings
from presence.service import Presence


@dataclass(frozen=True)
class Services:
    """What the operations call, each only the parts that it needs."""

    settings: DoorSettings
    database: Database
    link: RedisLink
    clock: Clock
    accounts: Accounts
    revocations: Revocations
    sign_ins: SignIns
    signing_in: SigningIn
    forgotten: ForgottenPasswords
    presence: Presence
    dispatch: Dispatch
    departures: Departures
    reader: Reader
    hours: HoursReader
    past_offers: PastOffersReader
    ops: OpsReader
    checkouts: Checkouts
    payments: Payments
    refunds: Refunds
    favorites: Favorites
    plans: Plans
    preferences: Preferences
    subscriptions: Subscriptions
    vapid: Vapid
    erasure: Erasure
    tokens: Tokens
    tickets: Tickets
    numbers: MachineNumbers
