"""What the terminal says once the demo is up. Pure."""

from dataclasses import dataclass

from demo.cast import CUSTOMERS
from demo.doors import entrance

REAL_PRIORITY_WINDOW_MS = 600_000
REAL_BROADCAST_WINDOW_MS = 900_000
PLAYABLE_MECHANIC = "mikes-garage"


@dataclass(frozen=True)
class Facts:
    """What is true of this run. ``second_base_url`` ``None``: the server has only one host name."""

    base_url: str
    second_base_url: str | None
    priority_window_ms: int
    broadcast_window_ms: int
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
        f"  Your data   {facts.data_place}",
        "  To stop     Ctrl-C",
        "",
    ]
    return "\n".join(lines)


def _windows(facts: Facts) -> str:
    is_short = (
        facts.priority_window_ms < REAL_PRIORITY_WINDOW_MS or facts.broadcast_window_ms < REAL_BROADCAST_WINDOW_MS
    )
    priority, broadcast = duration(facts.priority_window_ms), duration(facts.broadcast_window_ms)
    if not is_short:
        return f"a favourite has {priority} to answer, then everybody on duty {broadcast}"
    return (
        f"short, so that you see what happens: a favourite has {priority} to answer "
        f"({duration(REAL_PRIORITY_WINDOW_MS)} in real life),\n"
        f"              then everybody on duty {broadcast} ({duration(REAL_BROADCAST_WINDOW_MS)} in real life)"
    )


def _payments(facts: Facts) -> str:
    if facts.stripe_is_standin:
        return "Stripe is a stand-in on this machine, no real money moves: just click Pay"
    return "go to the Stripe account that PITLANE_STRIPE_SECRET_KEY belongs to"


def duration(ms: int) -> str:
    """Return a length of time as people say it: ``30 s``, ``10 min``."""
    return f"{ms // 60_000} min" if ms >= 120_000 and ms % 60_000 == 0 else f"{ms / 1000:g} s"
