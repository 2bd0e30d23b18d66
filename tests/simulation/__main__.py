"""Replay a seed, or look for one that fails: ``python -m tests.simulation SEED [COUNT]``."""

import sys
import tempfile
import time
from pathlib import Path

import anyio

from infra import migrations
from infra.database import Database
from tests.simulation.world import play


async def migrate(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    await migrations.upgrade(database)
    await database.close()


def main(arguments: list[str]) -> int:
    first, count = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 1
    broken = 0
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template.sqlite3"
        anyio.run(migrate, template)
        began_s = time.process_time()
        for seed in range(first, first + count):
            run = play(seed, template)
            if count == 1:
                print("\n".join(run.trace))
            for invariant, what in run.violations:
                print(f"seed {seed}: {invariant}: {what}", flush=True)
            broken += bool(run.violations)
        print(f"{count} worlds, {broken} broken, {(time.process_time() - began_s) / count:.3f} s of CPU each")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
