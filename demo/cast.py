"""Who there is in the demo, and ``prepare``, which makes them so.

Nobody here has a password: the demo's links (``demo.doors``) sign people in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from demo import characters, history
from demo.characters import Character
from demo.history import Service
from infra.database import Database
from models.errors import ConfigurationError
from models.tables import Account, DutyInterval, Favorite, Mechanic
from models.words import ProviderType, Role

_HOUR_MS = 3_600_000
_JOINED_AGO_MS = 900 * 24 * _HOUR_MS
_SEEN_AGO_MS = 2 * _HOUR_MS
TRIES_MAX = 3


@dataclass(frozen=True)
class MechanicMember:
    """A mechanic of the cast. ``character`` ``None``: not simulated, for a person to play."""

    slug: str
    name: str
    provider_type: ProviderType
    character: Character | None

    role = Role.MECHANIC


@dataclass(frozen=True)
class CustomerMember:
    """A customer of the cast, for a person to play. ``favorites``: slugs, oldest mark first, with what they did.

    ``others``: the same of mechanics who are none of their favourites.
    """

    slug: str
    name: str
    favorites: Mapping[str, tuple[Service, ...]]
    free_session_used: bool
    about: str
    """One clause for the terminal."""
    others: Mapping[str, tuple[Service, ...]] = field(default_factory=dict)

    role = Role.CUSTOMER


Member = MechanicMember | CustomerMember

MECHANICS = (
    MechanicMember("john-smith", "John Smith", "independent", characters.REGULAR),
    MechanicMember("mikes-garage", "Mike's Garage", "workshop", None),
    MechanicMember("hartley-and-sons", "Hartley & Sons", "workshop", characters.STEADY),
    MechanicMember("rosa-delgado", "Rosa Delgado", "independent", characters.STEADY),
    MechanicMember("nguyen-auto-care", "Nguyen Auto Care", "workshop", characters.STEADY),
    MechanicMember("elena-petrova", "Elena Petrova", "independent", characters.COMMUTER),
    MechanicMember("kwame-mensah", "Kwame Mensah", "independent", characters.TAKES_BREAKS),
    MechanicMember("lakeside-motors", "Lakeside Motors", "workshop", characters.DRIFTER),
    MechanicMember("priya-nair", "Priya Nair", "independent", characters.PICKY),
    MechanicMember("northgate-tyres", "Northgate Tyres", "workshop", characters.PICKY),
    MechanicMember("hans-becker", "Hans Becker", "independent", characters.ABSENT_MINDED),
    MechanicMember("sato-brothers", "Sato Brothers", "workshop", characters.ABSENT_MINDED),
    MechanicMember("oliver-grant", "Oliver Grant", "independent", characters.DAY_OFF),
    MechanicMember("vince-carrow", "Vince Carrow", "independent", characters.VANISHER),
)

CUSTOMERS = (
    CustomerMember(
        "john-doe",
        "John Doe",
        {
            # $245.00 and $890.00, as on the picture of the flow.
            "john-smith": (
                Service("quick_chat", 49_00, 310.2, was_rebooked=False),
                Service("expert_video", 87_00, 96.15),
                Service("premium_session", 109_00, 23.31),
            ),
            "mikes-garage": (
                Service("expert_video", 129_00, 640.07, was_rebooked=False),
                Service("premium_session", 219_00, 455.28),
                Service("premium_session", 219_00, 270.11),
                Service("expert_video", 98_00, 141.24),
                Service("premium_session", 225_00, 52.04),
            ),
        },
        free_session_used=True,
        about="with two favourites: John Smith, who is online, and Mike's Garage, which is not yet",
    ),
    CustomerMember(
        "amira-haddad",
        "Amira Haddad",
        {
            "elena-petrova": (
                Service("expert_video", 39_00, 120.22, was_rebooked=False),
                Service("expert_video", 42_00, 34.09),
            ),
            "kwame-mensah": (Service("quick_chat", 14_50, 61.17, was_rebooked=False),),
            "lakeside-motors": (Service("premium_session", 79_00, 15.26, was_rebooked=False),),
            "oliver-grant": (Service("expert_video", 42_00, 9.12, was_rebooked=False),),
        },
        free_session_used=True,
        about="whose favourites come and go",
        # How John Doe's favourites usually answer is known from what they said to others.
        others={
            "john-smith": (
                Service("quick_chat", 9_99, 47.19, answered_after_s=22),
                Service("expert_video", 29_99, 17.42, answered_after_s=31),
            ),
            "mikes-garage": (Service("premium_session", 49_99, 28.37, answered_after_s=52),),
            "hartley-and-sons": (Service("expert_video", 29_99, 12.33, answered_after_s=27, declined_by="john-smith"),),
        },
    ),
    CustomerMember(
        "noah-lindqvist",
        "Noah Lindqvist",
        {},
        free_session_used=False,
        about="new here, with the free diagnostic still to be had",
    ),
    CustomerMember(
        "dana-whitfield",
        "Dana Whitfield",
        {
            "vince-carrow": (
                Service("quick_chat", 12_50, 88.3, was_rebooked=False),
                Service("expert_video", 36_00, 21.18),
            ),
        },
        free_session_used=True,
        about="whose favourite, Vince Carrow, accepts and then vanishes: a no-show",
        others={
            "john-smith": (
                Service("quick_chat", 9_99, 40.08, answered_after_s=18),
                Service("expert_video", 29_99, 8.29, answered_after_s=45),
            ),
            "mikes-garage": (
                Service("quick_chat", 9_99, 45.21, answered_after_s=35),
                Service("expert_video", 29_99, 31.16, answered_after_s=71),
                Service("quick_chat", 9_99, 5.38, answered_after_s=48),
            ),
            "nguyen-auto-care": (
                Service("premium_session", 49_99, 36.05, answered_after_s=24, declined_by="mikes-garage"),
            ),
            "rosa-delgado": (Service("quick_chat", 9_99, 14.14, answered_after_s=58, declined_by="mikes-garage"),),
        },
    ),
)

MEMBERS: tuple[Member, ...] = (*MECHANICS, *CUSTOMERS)


def email_of(member: Member) -> str:
    """Return the address that identifies a member across starts (RFC 2606 §3: nobody can own it)."""
    return f"{member.slug.replace('-', '.')}@example.com"


async def prepare(database: Database, now_ms: int) -> dict[str, str]:
    """Make everybody exist who does not yet, with their past; return account ids by slug.

    All or nothing, and idempotent: whoever exists is left as visitors have made them. Several processes may do this at
    once. Raises ``ConfigurationError`` if somebody else has one of the addresses.
    """
    for remaining in reversed(range(TRIES_MAX)):
        try:
            async with database.write() as session:
                return await _prepare(session, now_ms)
        except IntegrityError:
            # Another process has just done the same; next time we see its rows.
            if not remaining:
                raise
    raise AssertionError("the last try returns or raises")


async def _prepare(session: AsyncSession, now_ms: int) -> dict[str, str]:
    ids: dict[str, str] = {}
    newcomers: set[str] = set()
    for member in MEMBERS:
        account = (await session.exec(select(Account).where(Account.email == email_of(member)))).first()
        if account is None:
            newcomers.add(member.slug)
            account = await _add(session, member, now_ms)
        elif account.role != member.role:
            raise ConfigurationError(
                f"The demo's {member.name} should be a {member.role}, but {account.email} is a {account.role}: "
                "set PITLANE_DATA_DIR to another directory for the demo."
            )
        ids[member.slug] = account.id
    for customer in CUSTOMERS:
        if customer.slug in newcomers:
            await _add_past(session, customer, ids, now_ms)
    return ids


async def _add(session: AsyncSession, member: Member, now_ms: int) -> Account:
    joined_at_ms = now_ms - _JOINED_AGO_MS
    account = Account(
        id=history.id_at(joined_at_ms),
        role=member.role,
        email=email_of(member),
        name=member.name,
        free_session_used=isinstance(member, CustomerMember) and member.free_session_used,
        created_at_ms=joined_at_ms,
    )
    session.add(account)
    await session.flush()
    if isinstance(member, MechanicMember):
        seen_at_ms = now_ms - _SEEN_AGO_MS
        session.add(Mechanic(id=account.id, provider_type=member.provider_type, last_seen_at_ms=seen_at_ms))
        session.add(DutyInterval(mechanic_id=account.id, started_at_ms=now_ms))
        await session.flush()
    return account


async def _add_past(session: AsyncSession, customer: CustomerMember, ids: Mapping[str, str], now_ms: int) -> None:
    for position, slug in enumerate(customer.favorites):
        marked_at_ms = now_ms - _JOINED_AGO_MS + position
        session.add(Favorite(customer_id=ids[customer.slug], mechanic_id=ids[slug], created_at_ms=marked_at_ms))
    for slug, services in (*customer.favorites.items(), *customer.others.items()):
        for service in services:
            await history.write(
                session,
                service,
                customer_id=ids[customer.slug],
                mechanic_id=ids[slug],
                declined_by_id=ids[service.declined_by] if service.declined_by else None,
                now_ms=now_ms,
            )
