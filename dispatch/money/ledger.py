"""The ledger of one payment: what was paid, what has gone back and by whom, what the bank has taken. Pure.

    paid = kept for what was served + given back (by us, by others) + taken by the bank

Stripe is asked for everything that has moved (its refunds and disputes) and the sums follow from that: so it does not matter which
event told of it, how often, or in which order. Nothing that Stripe has told of once is forgotten: an answer that lacks it is older.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

EntryKind = Literal["refund", "dispute"]
DisputeState = Literal["open", "won", "lost"]

REFUND_FAILED = frozenset({"failed", "canceled"})
REFUND_ARRIVED = "succeeded"
"""Every other status of a refund is of money on its way (docs.stripe.com/api/refunds/object)."""
DISPUTE_LOST = "lost"
DISPUTE_WON = frozenset({"won", "warning_closed", "prevented"})
"""Ends that leave us the money; an appeal is open again (docs.stripe.com/api/disputes/object)."""
INQUIRY = "warning_"
"""How the statuses of an inquiry begin: the bank asks, and has taken nothing yet (docs.stripe.com/disputes/how-disputes-work)."""


@dataclass(frozen=True)
class Entry:
    """A refund or a dispute of the payment, as Stripe has it. ``status`` is Stripe's word.

    ``is_ours``: a refund that we have asked for. ``is_refundable``: of a dispute, whether the payment can be given back meanwhile.
    """

    id: str
    kind: EntryKind
    amount_cents: int
    status: str
    is_ours: bool = False
    is_refundable: bool = False
    reason: str | None = field(default=None, compare=False)
    """Why a refund has failed, in Stripe's word; only in what Stripe has just said."""

    @property
    def has_failed(self) -> bool:
        """Whether it is a refund that came to nothing."""
        return self.kind == "refund" and self.status in REFUND_FAILED

    @property
    def progress(self) -> int:
        """How far a refund has come: on its way, arrived, failed (also after that)."""
        return 2 if self.has_failed else int(self.status == REFUND_ARRIVED)

    @property
    def is_on_its_way(self) -> bool:
        """Whether it is a refund that has not arrived yet, and may still fail."""
        return self.kind == "refund" and self.status != REFUND_ARRIVED and not self.has_failed

    @property
    def dispute(self) -> DisputeState | None:
        """How a dispute stands; ``None`` for a refund."""
        if self.kind != "dispute":
            return None
        if self.status == DISPUTE_LOST:
            return "lost"
        return "won" if self.status in DISPUTE_WON else "open"

    @property
    def holds(self) -> bool:
        """Whether Stripe refuses refunds because of it: an open dispute, unless it is an inquiry that a refund would end."""
        return self.dispute == "open" and not (self.status.startswith(INQUIRY) and self.is_refundable)


@dataclass(frozen=True)
class Ledger:
    """The sums. What is on its way counts as given back: it must not be asked for twice."""

    paid_cents: int
    by_us_cents: int = 0
    by_others_cents: int = 0
    on_its_way_cents: int = 0
    """Of what is given back, what has not arrived yet."""
    taken_cents: int = 0
    """By the bank, whose dispute was lost: the customer has it from there."""
    dispute: DisputeState | None = None
    """``open`` as long as any is; of closed ones, ``lost`` if any was."""
    is_held: bool = False
    """Whether nothing can be given back until a dispute is closed."""

    @property
    def given_back_cents(self) -> int:
        """What has gone back by refunds, or is on its way."""
        return self.by_us_cents + self.by_others_cents

    @property
    def left_cents(self) -> int:
        """What could still go back."""
        return max(0, self.paid_cents - self.given_back_cents - self.taken_cents)


@dataclass(frozen=True)
class Moved:
    """What others have moved since the ledger was last brought in line, for the request that was paid for."""

    returned_cents: int = 0
    """What they have given back."""
    failed_cents: int = 0
    """What they had given back and the customer's bank has sent back."""
    is_all_returned: bool = False
    """Whether nothing is left, and they had a part in that."""
    dispute: DisputeState | None = None
    """How a dispute stands that stood otherwise; ``None``: nothing new."""


@dataclass(frozen=True)
class Owed:
    """All of a payment is to go back. ``status`` as the customer has been told; ``stripe_refund_id`` of our last refund, if any."""

    status: str
    stripe_refund_id: str | None


@dataclass(frozen=True)
class Returned:
    """All of it is back: by whomever, or by the bank."""


@dataclass(frozen=True)
class OnItsWay:
    """Nothing is left to ask for; not all has arrived."""


@dataclass(frozen=True)
class Held:
    """A dispute is open: won, we pay; lost, the bank has paid."""


@dataclass(frozen=True)
class Broken:
    """A refund has failed at the customer's bank, and would fail again: an operator has to look, or to make it anew."""


@dataclass(frozen=True)
class Ask:
    """Stripe is to be asked for a refund of all that is left."""

    cents: int


Whereabouts = Returned | OnItsWay | Held | Broken | Ask


def merged(known: Iterable[Entry], said: Iterable[Entry]) -> dict[str, Entry]:
    """Return all entries by id: as Stripe has just said, and those that it did not speak of as they were known.

    A refund only gets on: what Stripe answers under an idempotency key is how it was when it was made.
    """
    entries = {entry.id: entry for entry in known}
    for entry in said:
        before = entries.get(entry.id, entry)
        now = before if entry.kind == "refund" and entry.progress < before.progress else entry
        entries[entry.id] = replace(now, is_ours=entry.is_ours or before.is_ours)
    return entries


def summed(paid_cents: int, entries: Iterable[Entry]) -> Ledger:
    """Return the sums of a payment's entries."""
    listed = list(entries)
    refunds = [entry for entry in listed if entry.kind == "refund" and not entry.has_failed]
    states = {entry.dispute for entry in listed} - {None}
    return Ledger(
        paid_cents=paid_cents,
        by_us_cents=sum(entry.amount_cents for entry in refunds if entry.is_ours),
        by_others_cents=sum(entry.amount_cents for entry in refunds if not entry.is_ours),
        on_its_way_cents=sum(entry.amount_cents for entry in refunds if entry.is_on_its_way),
        taken_cents=sum(entry.amount_cents for entry in listed if entry.dispute == "lost"),
        dispute="open" if "open" in states else "lost" if "lost" in states else "won" if states else None,
        is_held=any(entry.holds for entry in listed),
    )


def moved(before: Ledger, after: Ledger) -> Moved | None:
    """Return what others have moved between two states of the ledger; ``None`` if nothing."""
    gained = after.by_others_cents - before.by_others_cents
    news = Moved(
        returned_cents=max(0, gained),
        failed_cents=max(0, -gained),
        is_all_returned=gained > 0 and after.left_cents == 0,
        dispute=after.dispute if after.dispute != before.dispute else None,
    )
    return None if news == Moved() else news


def whereabouts(owed: Owed, ledger: Ledger, entries: Mapping[str, Entry], known: Mapping[str, Entry]) -> Whereabouts:
    """Return how it stands with a payment all of which is to go back; ``known``: the entries as they were before this look.

    A refund of ours that has failed since then is news that an operator has to hear. Asked for again by them, it is known.
    """
    if ledger.left_cents == 0:
        return OnItsWay() if ledger.on_its_way_cents else Returned()
    if ledger.is_held:
        return Held()
    if summed(ledger.paid_cents, known.values()).taken_cents > ledger.taken_cents:
        # The bank has changed its mind: what it had given to the customer is ours again, and to be given back by us.
        return Ask(ledger.left_cents)
    last = entries.get(owed.stripe_refund_id or "")
    has_just_failed = any(
        entry.is_ours and entry.has_failed and known.get(entry.id) != entry for entry in entries.values()
    )
    if owed.status != "pending" or has_just_failed or (last is not None and last.has_failed):
        # It was back, or thought to be, and is not any more.
        return Broken()
    return Ask(ledger.left_cents)
