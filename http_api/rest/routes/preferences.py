"""What a mechanic has chosen: which sessions they take, and what may wake them."""

from starlette.responses import Response

from dispatch.preferences import Chosen, Preferences
from http_api.rest.operation import MECHANIC, Call, Operation, operation
from http_api.rest.problems import invalid
from models.outcomes import Refused
from models.rest import FieldError, PreferencesBody, PreferencesView
from models.session_types import types_taken

PATH = "/api/me/preferences"


def operations(preferences: Preferences) -> list[Operation]:
    """Return this module's part of the table."""

    @operation("GET", PATH, roles=MECHANIC, answers={200: PreferencesView}, problems=("unavailable",))
    async def read_preferences(call: Call) -> PreferencesView | Refused:
        """Tell which sessions the mechanic takes, and whether open requests may wake them.

        A new mechanic takes all kinds, and is woken for priority offers alone.
        """
        return _view(await preferences.of(call.account_id))

    @operation(
        "PUT",
        PATH,
        roles=MECHANIC,
        body=PreferencesBody,
        answers={200: PreferencesView},
        problems=("unavailable",),
    )
    async def choose_preferences(call: Call) -> PreferencesView | Refused | Response:
        """Choose which sessions to take, and whether open requests may wake one.

        It counts at once: for who is asked, for what customers see, and for the offers on the mechanic's screens. There, broadcasts
        of a kind that was switched off are withdrawn (`declined`), those of one that was switched on are shown; a priority offer
        stays.
        Whoever wants no sessions at all goes off duty.
        """
        body = call.body_as(PreferencesBody)
        if len(set(body.session_types)) < len(body.session_types):
            return invalid([FieldError("session_types", "Names a kind more than once.")])
        return _view(
            await preferences.choose(call.account_id, body.session_types, push_broadcasts=body.push_broadcasts)
        )

    return [read_preferences, choose_preferences]


def _view(chosen: Chosen | Refused) -> PreferencesView | Refused:
    if isinstance(chosen, Refused):
        return chosen
    return PreferencesView(types_taken(chosen.types_off), chosen.push_broadcasts)
