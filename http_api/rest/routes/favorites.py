"""Whom a customer trusts."""

from http_api.rest.operation import CUSTOMER, Answer, Call, operation
from models.outcomes import Refused
from models.rest import FavoriteAdded, Favorites

PATH = "/api/favorites/{mechanic_id}"


@operation("GET", "/api/favorites", roles=CUSTOMER, answers={200: Favorites}, problems=("unavailable",))
async def list_favorites(call: Call) -> Favorites:
    """List the customer's favourites with what they did together and their status now."""
    return Favorites(await call.services.favorites.of(call.account_id))


@operation(
    "PUT",
    PATH,
    roles=CUSTOMER,
    answers={201: FavoriteAdded, 200: FavoriteAdded},
    problems=("too_many_favorites", "unavailable"),
    unknown_id="mechanic_not_found",
)
async def add_favorite(call: Call) -> Answer | Refused:
    """Mark a mechanic as a favourite.

    Idempotent: 201 for a new one, 200 for one that was there.
    """
    added = await call.services.favorites.add(call.account_id, call.path["mechanic_id"])
    if isinstance(added, Refused):
        return added
    favorite, is_new = added
    return Answer(201 if is_new else 200, FavoriteAdded(favorite))


@operation(
    "DELETE",
    PATH,
    roles=CUSTOMER,
    answers={204: None},
    problems=("unavailable",),
    unknown_id="mechanic_not_found",
)
async def remove_favorite(call: Call) -> None:
    """Take the mark back; idempotent."""
    await call.services.favorites.remove(call.account_id, call.path["mechanic_id"])


OPERATIONS = [list_favorites, add_favorite, remove_favorite]
