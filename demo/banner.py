"""What the terminal says once the demo is up. Pure, but for ``say``."""

from dataclasses import dataclass

from demo.cast import CUSTOMERS
from demo.doors import entrance

REAL_PRIORITY_WINDOW_MS = 600_000
REAL_BROADCAST_WINDOW_MS = 900_000
REAL_START_WINDOW_MS = 300_000
PLAYABLE_MECHANIC = "mikes-garage"
INDENT = " " * 14


@dataclass(frozen=True)
class Facts:
    """What is true of this run. ``second_base_url`` ``None``: the server has only one host name."""

    base_url: str
    second_base_url: str | None
    priority_window_ms: int
    broadcast_window_ms: int
    start_window_ms: int
    has_own_room: bool
    """Sessions take place in the demo's room, and not where ``PITLANE_JOIN_URL`` says."""
    data_place: str
    stripe_is_standin: bool


def text(facts: Facts) -> str:
    """Return the lines to print; each link is a line of its own, for terminals that make links clickable."""
    first, *others = CUSTOMERS
    lines = [
        "",
        "  Pitlane's demo is running. Open both pages, side by side, and play both sides.",
        "",
        f"  The customer's page: {first.name}, {first.about}",
        f"    {entrance(facts.base_url, first.slug)}",
        "",
        "  The mechanic's page: Mike's Garage, online as soon as you open it",
        f"    {entrance(facts.second_base_url or facts.base_url, PLAYABLE_MECHANIC)}",
    ]
    if facts.second_base_url is None:
        lines.append("    (in a private window: one browser window is one person at a time)")
    lines += ["", "  Other customers' pages"]
    for customer in others:
        lines += [f"    {customer.name}, {customer.about}", f"    {entrance(facts.base_url, customer.slug)}"]
    lines += [
        "",
        f"  Windows     {_windows(facts)}",
        f"  Payments    {_payments(facts)}",
        f"  Sessions    {_sessions(facts)}",
        f"  Your data   {facts.data_place}",
        "  To stop     Ctrl-C",
        "",
    ]
    return "\n".join(lines)


def _windows(facts: Facts) -> str:
    windows = (
        ("a favourite has {} to answer", facts.priority_window_ms, REAL_PRIORITY_WINDOW_MS),
        ("then everybody on duty {}", facts.broadcast_window_ms, REAL_BROADCAST_WINDOW_MS),
        ("whoever has accepted {} to start", facts.start_window_ms, REAL_START_WINDOW_MS),
    )
    if all(window_ms >= real_ms for _, window_ms, real_ms in windows):
        return ", ".join(clause.format(duration(window_ms)) for clause, window_ms, _ in windows)
    clauses = [
        f"{clause.format(duration(window_ms))} ({duration(real_ms)} in real life)"
        for clause, window_ms, real_ms in windows
    ]
    return "short, so that you see what happens: " + f",\n{INDENT}".join(clauses)


def _payments(facts: Facts) -> str:
    if facts.stripe_is_standin:
        return "Stripe is a stand-in on this machine, no real money moves: just click Pay"
    return "go to the Stripe account that PITLANE_STRIPE_SECRET_KEY belongs to"


def _sessions(facts: Facts) -> str:
    if facts.has_own_room:
        return "Join opens a room of the demo's own, a stand-in, where both sides see that the other has arrived"
    return "Join leads to where PITLANE_JOIN_URL says"


def say(text: str) -> None:
    """Tell whoever watches the terminal, at once also where that is a file."""
    print(text, flush=True)


def vanished(mechanic: str, customer: str, start_in_s: float) -> str:
    """Say in the terminal what a no-show is about to do to whom."""
    return (
        f"  {mechanic} has accepted {customer}'s request and vanishes: no connection, no start.\n"
        f"  In {start_in_s:.0f} s the server takes it back and asks everybody else, unless {customer} finds another sooner."
    )


def came_back(mechanic: str) -> str:
    """Say in the terminal that a no-show can be seen again."""
    return f"  {mechanic} is back, and can be booked again."


def duration(ms: int) -> str:
    """Return a length of time as people say it: ``30 s``, ``10 min``."""
    return f"{ms // 60_000} min" if ms >= 120_000 and ms % 60_000 == 0 else f"{ms / 1000:g} s"
