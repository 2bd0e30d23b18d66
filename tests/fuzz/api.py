"""An API fuzz: every operation of our own ``/openapi.json``, as each role, with odd values in every place.

A call is valid for the most part, so that it gets far, and odd in some place: path, query, headers, a member of the body, or all.
Ids that answers name are used again, so that what was made is worked on. Each call follows from the seed and its number; what it
finds depends on the state it meets, so whatever breaks a rule is shown as it was sent.
"""

import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import anyio
import httpx

from accounts.accounts import Accounts
from embedded.stripe_standin.webhooks import signature_header
from infra.clock import wall_clock_ms
from infra.database import Database
from tests.acceptance.clients import ON_LOOPBACK, token_for
from tests.hostile_frames import ODD_VALUES
from tests.integration.rest_house import House, rest_house

SIDE_BY_SIDE: Final = 4
POOL_LEN: Final = 40
"""Ids that answers have named, newest kept."""
HASHES: Final = frozenset({"register", "login", "change_password"})
SELDOM: Final = 0.2
"""How often those that work on a password are called, beside others: each takes as long as dozens of them."""
PAY_EVERY: Final = 5
"""Calls, after which one of the payment pages is paid."""
RESTORE_EVERY: Final = 40
"""Calls, after which accounts that were disabled are enabled again."""
GROWTH_MAX_KB: Final = 48 * 1024
WARM_UP_CALLS: Final = 1_500
ODD_TEXTS: Final = (
    *(
        "",
        " ",
        "\n",
        "null",
        "NULL",
        "undefined",
        "0",
        "-1",
        "1e309",
        "9" * 400,
        "NaN",
        "true",
        "[]",
        "{}",
        "../..",
        "%00",
        "'--",
    ),
    *(
        "\x00",
        "\x7f",
        "\x85",
        "\u2028",
        "\u202e\u200b",
        "\u0301" * 300,
        "\ufeff",
        "\uffff",
        "\U0010ffff",
        "\U000e0001",
        "\u0958" * 300,
    ),
    *(
        "x" * 65,
        "x" * 5_000,
        "a,b",
        ",",
        "a," * 150,
        "id\n",
        "2026-01-01",
        "0001-01-01",
        "9999-12-31",
        "2026-13-45",
        "\u0664",
    ),
    *(
        "a@b",
        "A@B.C\n",
        "x@\u202ey",
        f"{'x' * 250}@y",
        "https://127.0.0.1/x",
        "http://[::1",
        "https://\u2025/",
        "//x",
        "javascript:x",
    ),
)
ODD_HEADERS: Final = (
    *(
        b"",
        b"\xff\xfe",
        b"null",
        b"x" * 300,
        b"a, b",
        b"Bearer",
        b"0",
        b"-1",
        b"application/xml",
        b"gzip",
        b'"',
        b"\x80" * 20,
    ),
)
HEADERS: Final = (
    *(
        "Idempotency-Key",
        "Pitlane-Account",
        "Authorization",
        "Cookie",
        "Origin",
        "Content-Type",
        "Accept",
        "Accept-Encoding",
    ),
    *(
        "If-None-Match",
        "User-Agent",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "Stripe-Signature",
        "Content-Encoding",
        "Range",
    ),
)
ROLES: Final = ("nobody", "customer", "other_customer", "mechanic", "workshop", "admin")
NOT_FUZZED: Final = frozenset({"erase"})
"""Whose success would end the accounts that everything else is done with. No password here is right, but one guess is enough."""


@dataclass
class Findings:
    """What was called, and what must not have come of it."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    grown_kb: int = 0

    @property
    def calls(self) -> int:
        return sum(self.statuses.values())


@dataclass(frozen=True)
class Sent:
    """One call, as it goes out."""

    operation: Mapping[str, Any]
    method: str
    url: str
    headers: list[tuple[str, bytes]]
    content: bytes

    def __str__(self) -> str:
        return f"{self.method} {self.url[:300]} {self.headers} {self.content[:600]!r}"


class Fuzz:
    """Makes calls and judges the answers."""

    def __init__(self, house: House, accounts: Accounts, described: Mapping[str, Any], seed: int) -> None:
        self.found = Findings()
        self._house = house
        self._accounts = accounts
        self._seed = seed
        self._schemas = described["components"]["schemas"]
        self._operations = [
            {**operation, "path": path, "method": method.upper()}
            for path, methods in sorted(described["paths"].items())
            for method, operation in sorted(methods.items())
            if operation["operationId"] not in NOT_FUZZED
        ]
        self._weights = [SELDOM if one["operationId"] in HASHES else 1.0 for one in self._operations]
        self._ids: defaultdict[str, deque[str]] = defaultdict(partial(deque, maxlen=POOL_LEN))
        self._ids["account"] += [house.customer, house.other_customer, house.mechanic, house.workshop]
        self._ids["mechanic"] += [house.mechanic, house.workshop]
        self._unpaid: deque[str] = deque(maxlen=POOL_LEN)
        self._number = 0
        self._first_rss_kb = 0

    async def run(self, *, for_s: float) -> None:
        """Call until the time is over."""
        ends_at_s = time.monotonic() + for_s
        async with httpx.AsyncClient(base_url=self._house.base_url, timeout=60.0, **ON_LOOPBACK) as client:
            async with anyio.create_task_group() as tasks:
                for _ in range(SIDE_BY_SIDE):
                    tasks.start_soon(self._call_until, client, ends_at_s)
            await self._restore()
        self.found.grown_kb = self._rss_kb() - self._first_rss_kb if self._first_rss_kb else 0
        log = self._house.server.log_path.read_text(errors="replace")
        if "Traceback" in log:
            at = log.index("Traceback")
            self.found.wrong.append(f"a traceback in the log: {log[max(0, at - 600) : at + 3_000]}")

    async def _call_until(self, client: httpx.AsyncClient, ends_at_s: float) -> None:
        while time.monotonic() < ends_at_s and len(self.found.wrong) < 20:
            self._number += 1
            if self._number % RESTORE_EVERY == 0:
                await self._restore()
            if self._unpaid and self._number % PAY_EVERY == 0:
                await client.post(self._unpaid.popleft(), data={"ending": "pay"})
            if self._number == WARM_UP_CALLS:
                self._first_rss_kb = self._rss_kb()
            sent = self._call(random.Random(f"{self._seed}:{self._number}"))
            try:
                answer = await client.request(sent.method, sent.url, headers=sent.headers, content=sent.content)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                self.found.wrong.append(f"{error!r}: {sent}")
                continue
            self._judge(sent, answer)

    def _judge(self, sent: Sent, answer: httpx.Response) -> None:
        name, status = str(sent.operation["operationId"]), answer.status_code
        self.found.statuses[name, status] += 1
        is_problem = answer.headers.get("content-type") == "application/problem+json"
        # On a busy machine Stripe or SQL may take too long: the answer says so, and when to try again.
        is_our_fault = status >= 500 and "retry-after" not in answer.headers
        if is_our_fault or (status >= 400) != is_problem or str(status) not in sent.operation["responses"]:
            self.found.wrong.append(f"{status} {answer.text[:300]}: {sent}")
        elif answer.content and answer.headers.get("content-type") == "application/json":
            for kind, its_id in _ids_in(answer.json(), ""):
                if its_id not in self._ids[kind]:
                    self._ids[kind].append(its_id)
            if sent.operation["operationId"] == "create_checkout" and "url" in answer.json():
                self._unpaid.append(answer.json()["url"])

    async def _restore(self) -> None:
        """Enable the accounts again that an operator of the fuzz has disabled."""
        house = self._house
        for account_id in (house.customer, house.other_customer, house.mechanic, house.workshop, house.admin):
            await self._accounts.set_disabled(account_id, False, now_ms=wall_clock_ms())

    def _rss_kb(self) -> int:
        status = Path(f"/proc/{self._house.server.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    # --- one call -----------------------------------------------------------------------------------------------------

    def _call(self, dice: random.Random) -> Sent:
        [operation] = dice.choices(self._operations, self._weights)
        oddity = dice.choice(("nothing", "path", "query", "header", "member", "member", "body", "all"))
        path = operation["path"]
        for parameter in operation["parameters"]:
            if parameter["in"] == "path":
                is_odd = oddity in ("path", "all") and dice.random() < 0.9
                text = dice.choice(ODD_TEXTS) if is_odd else self._an_id(dice, _kind_of(path))
                path = path.replace(f"{{{parameter['name']}}}", quote(text or "x", safe=""))
        headers = self._headers(operation, dice, is_odd=oddity in ("header", "all"))
        content = self._content(operation, dice, oddity)
        if operation["operationId"] == "stripe_webhook":
            content = self._event(dice)
            if dice.random() < 0.8:
                secret = self._house.settings.stripe().webhook_secrets[0]
                signed = signature_header(content.decode(errors="replace"), secret, time.time_ns() // 1_000_000_000)
                headers = [one for one in headers if one[0] != "Stripe-Signature"]
                headers.append(("Stripe-Signature", signed.encode()))
        query = self._query(operation, dice, is_odd=oddity in ("query", "all"))
        return Sent(operation, operation["method"], path + query, headers, content)

    def _an_id(self, dice: random.Random, kind: str) -> str:
        ids = self._ids[kind] if self._ids[kind] and dice.random() < 0.95 else dice.choice(list(self._ids.values()))
        return dice.choice(ids) if ids else "01KARJ7QWA1E5G9K3N7R2T6V0X"

    def _query(self, operation: Mapping[str, Any], dice: random.Random, *, is_odd: bool) -> str:
        pairs = []
        for parameter in operation["parameters"]:
            if parameter["in"] == "query" and dice.random() < 0.7:
                for _ in range(dice.choice((1, 1, 1, 2, 20))):
                    value = (
                        dice.choice(ODD_TEXTS) if is_odd else str(json.loads(self._value(parameter["schema"], dice)))
                    )
                    pairs.append(f"{parameter['name']}={quote(value)}")
        if is_odd and dice.random() < 0.3:
            pairs.append(dice.choice(("%", "%ff=%fe", "&&=", "a" * 4_000, "x[]=1", "limit", "limit=%C0%80")))
        return f"?{'&'.join(pairs)}" if pairs else ""

    def _headers(self, operation: Mapping[str, Any], dice: random.Random, *, is_odd: bool) -> list[tuple[str, bytes]]:
        meant = [role for role in ROLES if role.removeprefix("other_") in operation.get("x-roles", ROLES)]
        role = dice.choice(meant) if meant and dice.random() < 0.85 else dice.choice(ROLES)
        headers: list[tuple[str, bytes]] = [("Content-Type", b"application/json")]
        if role != "nobody":
            kind = {"other_customer": "customer", "workshop": "mechanic"}.get(role, role)
            token = token_for(getattr(self._house, role), kind).encode()
            is_cookie = dice.random() < 0.3
            headers.append(
                ("Cookie", b"pitlane_session=" + token) if is_cookie else ("Authorization", b"Bearer " + token)
            )
        if dice.random() < 0.3:
            headers.append(("Idempotency-Key", str(dice.randrange(20)).encode()))
        if is_odd:
            headers += [(dice.choice(HEADERS), dice.choice(ODD_HEADERS)) for _ in range(dice.choice((1, 3)))]
        return headers

    def _content(self, operation: Mapping[str, Any], dice: random.Random, oddity: str) -> bytes:
        if "requestBody" not in operation:
            return dice.choice(ODD_VALUES).encode() if oddity in ("body", "all") else b""
        if oddity == "body":
            odd = dice.choice(ODD_VALUES).encode(errors="surrogatepass")
            return dice.choice((odd, odd, b"\xff" * 9, b"\xef\xbb\xbf{}", b"\x1f\x8b\x08", b" " * 70_000))
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        return self._value(schema, dice, odd_share=0.4 if oddity in ("member", "all") else 0.0).encode(
            errors="surrogatepass"
        )

    def _event(self, dice: random.Random) -> bytes:
        def some(*usual: str) -> str:
            return dice.choice(usual) if dice.random() < 0.6 else dice.choice(ODD_VALUES)

        kind = dice.choice(
            ("checkout.session.completed", "charge.refunded", "refund.created", "payment_intent.succeeded", "x")
        )
        subject = f'{{"id": {some(json.dumps("cs_1"))}, "payment_intent": {some(json.dumps("pi_1"), "null")}}}'
        if dice.random() < 0.1:
            return dice.choice(ODD_VALUES).encode(errors="surrogatepass")
        members = {
            "id": some(json.dumps(f"evt_{dice.randrange(10**9)}")),
            "type": some(json.dumps(kind)),
            "created": some("1"),
            "livemode": some("false"),
            "data": some(f'{{"object": {subject}}}'),
        }
        text = ", ".join(f'"{name}": {value}' for name, value in members.items())
        return f"{{{text}}}".encode(errors="surrogatepass")

    # --- values -------------------------------------------------------------------------------------------------------

    def _value(self, schema: Mapping[str, Any], dice: random.Random, *, odd_share: float = 0.0) -> str:
        """Return JSON that fits, but for members of which a share is odd."""
        schema = self._schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        if "anyOf" in schema:
            return self._value(dice.choice(schema["anyOf"]), dice, odd_share=odd_share)
        if "enum" in schema:
            return json.dumps(dice.choice(schema["enum"]))
        match schema.get("type"):
            case "object":
                return self._object(schema, dice, odd_share)
            case "array":
                count = dice.choice((1, 1, 2, 5))
                return f"[{', '.join(self._value(schema['items'], dice) for _ in range(count))}]"
            case "string":
                return json.dumps(self._text(schema, dice))
            case "integer" | "number":
                return str(dice.choice((1, 20, 60, 100, 14_400)))
            case "boolean":
                return dice.choice(("true", "false"))
            case _:
                return "null"

    def _object(self, schema: Mapping[str, Any], dice: random.Random, odd_share: float) -> str:
        members = []
        for name, member in schema.get("properties", {}).items():
            if dice.random() < 0.1 and name not in schema.get("required", ()):
                continue
            is_odd = dice.random() < odd_share
            value = self._odd(dice) if is_odd else self._value(member, dice, odd_share=odd_share)
            members += [f"{json.dumps(name)}: {value}"] * (2 if is_odd and dice.random() < 0.2 else 1)
        if dice.random() < odd_share / 4:
            members.append(f'"more": {self._odd(dice)}')
        return f"{{{', '.join(members)}}}"

    def _odd(self, dice: random.Random) -> str:
        return (
            dice.choice(ODD_VALUES)
            if dice.random() < 0.5
            else json.dumps(dice.choice(ODD_TEXTS), ensure_ascii=dice.random() < 0.5)
        )

    def _text(self, schema: Mapping[str, Any], dice: random.Random) -> str:
        pattern, title = schema.get("pattern", ""), schema.get("format", "")
        if "@" in pattern:
            return f"{dice.randrange(10**6)}@example.com"
        if pattern.startswith("^https?"):
            return f"https://push.example.com/{dice.randrange(30)}"
        if "A-Za-z0-9_-" in pattern:
            return self._an_id(dice, "mechanic")
        if title == "date":
            return f"2026-{dice.randrange(1, 13):02}-{dice.randrange(1, 29):02}"
        if dice.random() < 0.3:
            return dice.choice(("quick_chat", "free_diagnostic", "expert_video"))
        return "".join(dice.choice("aé ñ😀\u0301\u200d\u202e\u2028ق字\n\t") for _ in range(dice.choice((8, 12, 60))))


def _kind_of(path: str) -> str:
    """Return of which kind the id in a path is: ``request`` in ``/api/ops/requests/{id}/refund``."""
    kind = path.partition("/{")[0].rpartition("/")[2].removesuffix("s")
    return {"favorite": "mechanic"}.get(kind, kind)


def _ids_in(value: object, within: str) -> Iterator[tuple[str, str]]:
    """Tell what an answer calls an id, at any depth, and of what kind it is; ``within`` is the member that has the value."""
    if isinstance(value, list):
        for one in value:
            yield from _ids_in(one, within)
    elif isinstance(value, dict):
        for name, one in value.items():
            if isinstance(one, str) and (name == "id" or name.endswith("_id")):
                kind = within.removesuffix("s") if name == "id" else name.removesuffix("_id")
                yield {"provider": "mechanic"}.get(kind, kind), one
            else:
                yield from _ids_in(one, name)


async def fuzz(house: House, seed: int, *, for_s: float) -> Findings:
    """Call for a while; return what came of it."""
    async with house.as_nobody() as rest:
        described = await rest.ok("GET", "/openapi.json")
    database = Database(house.settings.resolved_database_url)
    try:
        made = Fuzz(house, Accounts(database), described, seed)
        await made.run(for_s=for_s)
    finally:
        await database.close()
    return made.found


async def main(seed: int, minutes: float) -> int:
    """Run alone, on a server of its own; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        async with rest_house(Path(folder)) as house:
            found = await fuzz(house, seed, for_s=minutes * 60)
    for (name, status), count in sorted(found.statuses.items()):
        print(f"{count:7} {status} {name}")
    print(
        f"seed {seed}: {found.calls} calls, {len(found.wrong)} wrong, grown by {found.grown_kb} KB after {WARM_UP_CALLS} calls"
    )
    for one in found.wrong:
        print(one)
    return 1 if found.wrong or found.grown_kb > GROWTH_MAX_KB else 0


if __name__ == "__main__":
    sys.exit(anyio.run(main, int(sys.argv[1]), float(sys.argv[2])))
