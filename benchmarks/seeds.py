"""Accounts and requests to start from, made by the product's own commands and code."""

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.servers import ROOT, environment
from tests.services import free_port

IMPORT_TIMEOUT_S = 300


@dataclass(frozen=True)
class People:
    """Accounts in a database."""

    mechanics: list[str]
    customers: list[str]


def import_people(folder: Path, *, mechanics: int, customers: int, database_url: str) -> People:
    """Add accounts without passwords by ``run.py account import``; return their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "accounts.csv"
    rows = [
        ["mechanic", f"m{number}@example.com", f"Mechanic {number}", "", "independent"] for number in range(mechanics)
    ]
    rows += [["customer", f"c{number}@example.com", f"Customer {number}", "", ""] for number in range(customers)]
    with path.open("w", newline="") as lines:
        csv.writer(lines).writerows([["role", "email", "name", "password", "provider_type"], *rows])
    done = run(folder, "account", "import", str(path), database_url=database_url)
    ids = [json.loads(line)["id"] for line in done.splitlines()]
    return People(ids[:mechanics], ids[mechanics:])


def run(folder: Path, *command: str, database_url: str) -> str:
    """Run one of ``run.py``'s commands and return what it printed; raises ``RuntimeError`` with what went wrong."""
    done = subprocess.run(
        [sys.executable, "run.py", *command],
        cwd=ROOT,
        env=environment(folder, free_port(), DATABASE_URL=database_url),
        capture_output=True,
        text=True,
        timeout=IMPORT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"run.py {' '.join(command[:2])} failed: {done.stderr}")
    return done.stdout
