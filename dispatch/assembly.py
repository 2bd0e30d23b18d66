"""How the parts of dispatch are put together on one node: in one way, whoever does it (the server, a command, a test)."""

from collections.abc import Mapping

from dispatch.awaited import Awaited
from dispatch.deadlines import Deadlines
from dispatch.departures import Departures
from dispatch.elapsing import Elapsing
from dispatch.money.bookkeeping import Bookkeeping
from dispatch.money.checkout import Checkouts
from dispatch.money.payments import Payments
from dispatch.money.reconciler import Reconciler
from dispatch.money.refunds import Refunds
from dispatch.money.stripe_api import StripeApi
from dispatch.money.superseded import Superseded
from dispatch.outbox import Outbox
from dispatch.preferences import Preferences
from dispatch.push.bell import Bell
from dispatch.push.pages import OpenPages
from dispatch.push.planner import Planner
from dispatch.push.road import TrustedHosts
from dispatch.push.sender import Sender
from dispatch.push.subscriptions import Subscriptions
from dispatch.push.updates import Updates
from dispatch.push.vapid import Vapid
from dispatch.reading.hours_reader import HoursReader
from dispatch.reading.ops import OpsReader
from dispatch.reading.past_offers import PastOffersReader
from dispatch.reading.reader import Reader
from dispatch.request import Windows
from dispatch.responses import Responses
from dispatch.retention import Retention
from dispatch.service import Dispatch
from dispatch.showing import Rooms, Showing
from dispatch.telling import Telling
from infra.bus import Bus
from infra.clock import Clock, RedisClock
from infra.database import Database
from infra.loops import Loop
from infra.redis_link import RedisLink
from models.settings import DispatchSettings, StripeSettings
from presence.service import Presence

Loops = Mapping[str, Loop]
"""What has to run until cancelled, each by its name."""


def windows_of(settings: DispatchSettings) -> Windows:
    """Return how long windows stay open, as the operator has set it."""
    return Windows(
        settings.priority_window_ms, settings.broadcast_window_ms, settings.start_window_ms, settings.session_grace_ms
    )


def _rooms_of(settings: DispatchSettings) -> Rooms | None:
    if settings.join_url is None or settings.join_secret is None:
        return None
    return Rooms(settings.join_url, settings.join_secret, settings.session_grace_ms)


class DispatchParts:
    """Requests, offers, their deadlines, and telling of them. Nothing happens by itself until ``loops`` run."""

    def __init__(
        self,
        *,
        database: Database,
        link: RedisLink,
        bus: Bus,
        clock: RedisClock,
        presence: Presence,
        settings: DispatchSettings,
        secret_key: str,
        contact: str,
    ) -> None:
        """``secret_key`` and ``contact``: see ``Vapid``."""
        self.outbox = Outbox(database, clock, settings)
        self.preferences = Preferences(database, self.outbox)
        trusted = TrustedHosts.of(settings.push_trusted_hosts)
        self.vapid = Vapid(database, clock, secret_key=secret_key, contact=contact)
        bell = Bell()
        self.subscriptions = Subscriptions(
            database=database, clock=clock, bell=bell, outbox=self.outbox, settings=settings, trusted=trusted
        )
        planner = Planner(
            database=database, clock=clock, presence=presence, bell=bell, broadcast_push_max=settings.broadcast_push_max
        )
        self.pages = OpenPages(link, bus)
        Updates(database=database, clock=clock, pages=self.pages, bell=bell, outbox=self.outbox)
        sender = Sender(
            database=database,
            clock=clock,
            bell=bell,
            subscriptions=self.subscriptions,
            pages=self.pages,
            trusted=trusted,
            vapid=self.vapid,
        )
        self.deadlines = Deadlines(link, clock, settings)
        bus.on_gap(self.deadlines.suspect)
        windows = windows_of(settings)
        showing = Showing(clock=clock, presence=presence, rooms=_rooms_of(settings))
        self.reader = Reader(database, clock, showing)
        self.hours = HoursReader(database, clock)
        self.past_offers = PastOffersReader(database, clock, settings)
        self.ops = OpsReader(database=database, clock=clock, presence=presence, outbox=self.outbox)
        self.dispatch = Dispatch(
            database=database,
            clock=clock,
            outbox=self.outbox,
            showing=showing,
            windows=windows,
            settings=settings,
        )
        self.elapsing = Elapsing(
            database=database,
            clock=clock,
            deadlines=self.deadlines,
            outbox=self.outbox,
            windows=windows,
            settings=settings,
        )
        self.departures = Departures(database=database, dispatch=self.dispatch, subscriptions=self.subscriptions)
        responses = Responses(database=database, clock=clock)
        awaited = Awaited(database=database, clock=clock, outbox=self.outbox, settings=settings)
        Telling(
            database=database,
            link=link,
            bus=bus,
            clock=clock,
            presence=presence,
            deadlines=self.deadlines,
            planner=planner,
            showing=showing,
            outbox=self.outbox,
        )
        self.loops: Loops = {
            "outbox": self.outbox.run,
            "push_planner": planner.run,
            "push": sender.run,
            "dispatch": self.dispatch.run,
            "elapsing": self.elapsing.run,
            "awaited": awaited.run,
            "responses": responses.run,
            "departures": self.departures.run,
        }


class MoneyParts:
    """Checkouts, payments, refunds and what looks after them. Nothing happens by itself until ``loops`` run."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        outbox: Outbox,
        stripe_api: StripeApi,
        stripe: StripeSettings,
        settings: DispatchSettings,
        base_url: str,
    ) -> None:
        """``base_url`` is where Stripe sends customers back to."""
        windows = windows_of(settings)
        self.bookkeeping = Bookkeeping(
            database=database, clock=clock, outbox=outbox, stripe_api=stripe_api, windows=windows
        )
        self.refunds = Refunds(
            database=database,
            clock=clock,
            outbox=outbox,
            stripe_api=stripe_api,
            bookkeeping=self.bookkeeping,
            settings=settings,
        )
        self.payments = Payments(
            database=database,
            clock=clock,
            outbox=outbox,
            bookkeeping=self.bookkeeping,
            stripe_api=stripe_api,
            windows=windows,
        )
        superseded = Superseded(database=database, clock=clock, stripe_api=stripe_api, payments=self.payments)
        self.checkouts = Checkouts(
            database=database,
            clock=clock,
            stripe_api=stripe_api,
            payments=self.payments,
            superseded=superseded,
            settings=stripe,
            base_url=base_url,
        )
        self.reconciler = Reconciler(
            database=database,
            clock=clock,
            stripe_api=stripe_api,
            bookkeeping=self.bookkeeping,
            payments=self.payments,
            superseded=superseded,
            refunds=self.refunds,
        )
        self.retention = Retention(database=database, clock=clock, settings=settings)
        self.loops: Loops = {
            "refunds": self.refunds.run,
            "payments": self.payments.run,
            "superseded": superseded.run,
            "reconciler": self.reconciler.run,
            "retention": self.retention.run,
        }
