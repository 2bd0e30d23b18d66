"""``run.py bench [NAME]``: chooses, runs, prints, and writes the figures into ``docs/benchmarks.md`` where asked to."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

import anyio

from benchmarks import contenders, dispatch, frame_fuzz, hostile, presence, soak, transitions, webhook
from benchmarks.cores import Cores, raise_open_files_limit
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.seeds import Postgres, Sqlite

BENCHES: Final = {
    "presence": presence.measure,
    "presence-soak": soak.measure,
    "dispatch": dispatch.measure,
    "transitions": transitions.measure,
    "webhook": webhook.measure,
    "hostile": hostile.measure,
    "frames": frame_fuzz.measure,
}
BY_DEFAULT: Final = ("presence", "dispatch", "transitions", "webhook")


def main(arguments: list[str]) -> int:
    """Return the exit code: 0 done, 1 something did not happen, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        print(f"run.py: there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHES)}.", file=sys.stderr)
        return 2
    if sys.platform != "linux":
        print("run.py: the benchmarks read /proc and choose cores, which needs Linux.", file=sys.stderr)
        return 2
    raise_open_files_limit()
    cores = Cores()
    python, why_not = contenders.peers_python(wanted=not options.without_peers)
    size = Options(
        connections=options.connections,
        windows=options.windows,
        repeats=options.repeats,
        duration_s=options.duration,
        database=options.database,
        is_quick=options.quick,
        peers=python,
        without_peers=why_not,
    )
    for name in options.names or BY_DEFAULT:
        try:
            report = _measured(name, size, cores)
            print(report.as_text(), end="\n\n", flush=True)
            if options.write:
                report.write()
        except (RuntimeError, TimeoutError) as error:
            print(f"run.py: the benchmark {name} did not come to its end: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


def _measured(name: str, size: Options, cores: Cores) -> Report:
    with tempfile.TemporaryDirectory(prefix="pitlane-bench-") as folder:
        return anyio.run(BENCHES[name], size, cores, Path(folder), backend_options={"use_uvloop": True})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py bench", description="Measure, beside peers in the same run.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHES)}; without: {', '.join(BY_DEFAULT)}"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it works, not how fast")
    parser.add_argument("--connections", type=int, metavar="N", help="mechanics' sockets")
    parser.add_argument("--windows", type=int, metavar="N", help="deadlines that end together (dispatch)")
    parser.add_argument("--repeats", type=int, metavar="N", help="the table shows medians over these")
    parser.add_argument("--duration", type=float, metavar="S", help="seconds of each measured stretch")
    parser.add_argument("--database", choices=[Sqlite.name, Postgres.name], help="on this one only (not presence)")
    parser.add_argument("--without-peers", action="store_true", help="Pitlane alone")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    return parser
