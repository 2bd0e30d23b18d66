"""Whom a customer trusts."""

from dispatch.favorites import Favorites
from http_api.rest.operation import CUSTOMER, Answer, Call, Operation, operation
from models import rest
from models.outcomes import Refused

PATH = "/api/favorites/{mechanic_id}"


def operations(favorites: Favorites) -> list[Operation]:
    """Return this module's part of the table."""

    @operation("GET", "/api/favorites", roles=CUSTOMER, answers={200: rest.Favorites}, problems=("unavailable",))
    async def list_favorites(call: Call) -> rest.Favorites:
        """List the customer's favourites with what they did together and their status now."""
        return rest.Favorites(await favorites.of(call.account_id))

    @operation(
        "PUT",
        PATH,
        roles=CUSTOMER,
        answers={201: rest.FavoriteAdded, 200: rest.FavoriteAdded},
        problems=("too_many_favorites", "unavailable"),
        unknown_id="mechanic_not_found",
    )
    async def add_favorite(call: Call) -> Answer | Refused:
        """Mark a mechanic as a favourite.

        Idempotent: 201 for a new one, 200 for one that was there.
        """
        added = await favorites.add(call.account_id, call.path["mechanic_id"])
        if isinstance(added, Refused):
            return added
        favorite, is_new = added
        return Answer(201 if is_new else 200, rest.FavoriteAdded(favorite))

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
        await favorites.remove(call.account_id, call.path["mechanic_id"])

    return [list_favorites, add_favorite, remove_favorite]
