"""What somebody may see and change of their own account: their name, where they are signed in, and whether it exists."""

from accounts.accounts import Accounts
from accounts.revocations import Revocations
from accounts.sign_ins import SignIns
from dispatch.departures import Departures
from dispatch.erasure import Erasure
from http_api import cookies
from http_api.rest.login_limit import LoginLimit
from http_api.rest.operation import CUSTOMER_OR_MECHANIC, SIGNED_IN, Answer, Call, Operation, operation
from http_api.rest.routes.passwords import proven
from http_api.rest.signing_in import account_view
from models.outcomes import Refused
from models.rest import AccountView, Devices, DeviceView, EraseBody, NameBody
from models.timestamps import rfc3339


def operations(
    accounts: Accounts,
    revocations: Revocations,
    sign_ins: SignIns,
    limit: LoginLimit,
    erasure: Erasure,
    departures: Departures,
) -> list[Operation]:
    """Return this module's part of the table."""

    @operation(
        "PATCH", "/api/me", roles=SIGNED_IN, body=NameBody, answers={200: AccountView}, problems=("unavailable",)
    )
    async def rename(call: Call) -> AccountView | Refused:
        """Take another name: others see it from now on, also on what was booked before."""
        account = await accounts.rename(call.account_id, call.body_as(NameBody).name)
        return account if isinstance(account, Refused) else account_view(account)

    @operation("GET", "/api/me/devices", roles=SIGNED_IN, answers={200: Devices}, problems=("unavailable",))
    async def devices(call: Call) -> Devices:
        """List the devices that are signed in, the newest first.

        Tokens that others have made with the secret key are none of them.
        """
        signed_in = await sign_ins.of(call.account_id, now_ms=call.received_at_ms)
        return Devices(
            [
                DeviceView(
                    one.id, one.user_agent, rfc3339(one.created_at_ms), is_this=one.id == call.identity.sign_in_id
                )
                for one in signed_in
            ]
        )

    @operation("DELETE", "/api/me/devices/{device_id}", roles=SIGNED_IN, answers={204: None}, problems=("unavailable",))
    async def sign_out_device(call: Call) -> Refused | None:
        """Sign out one device: its tokens are refused, and its sockets closed (4401)."""
        if not await revocations.revoke_sign_in(call.account_id, call.path["device_id"]):
            return Refused("not_found", "You are not signed in there, or not any more.")
        return None

    @operation(
        "DELETE",
        "/api/me",
        roles=CUSTOMER_OR_MECHANIC,
        body=EraseBody,
        answers={204: None},
        problems=("bad_credentials", "request_open", "too_many_attempts", "too_many_requests", "unavailable"),
    )
    async def erase(call: Call) -> Answer | Refused:
        """Erase the account: signed out everywhere, and nothing kept of its person. It cannot be undone.

        Bookings and money are kept, of a "Former customer" or "Former mechanic". Refused while a request is open.
        """
        account = await proven(accounts, limit, call, call.body_as(EraseBody).current_password)
        if isinstance(account, Refused):
            return account
        if (refused := await erasure.erase(account)) is not None:
            return refused
        await revocations.tell()
        departures.wake()
        await erasure.sweep()
        return Answer(204, cookies=[cookies.setting(cookies.SESSION, "", 0)])

    return [rename, devices, sign_out_device, erase]
