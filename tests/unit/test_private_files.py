"""What is ours in the data directory is its owner's alone, also what an earlier version has left open."""

import os
import socket
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from infra.private_files import DatabaseInUse, alone, in_use, make_private
from models.errors import ConfigurationError

NOBODY = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_exists_already_is_made_private(tmp_path: Path) -> None:
    data_dir, elsewhere = tmp_path / "var", tmp_path / "elsewhere"
    for folder in (data_dir / "redis" / "appendonlydir", elsewhere):
        folder.mkdir(parents=True)
    names = ["secret_key", "secret_key.0f", "pitlane.sqlite3", "pitlane.sqlite3-wal", "pitlane.sqlite3-shm"]
    ours = [data_dir / name for name in names]
    ours += [
        data_dir / "redis" / name for name in ("redis.log", "owner.lock", "appendonlydir/appendonly.aof.1.base.rdb")
    ]
    ours += [elsewhere / name for name in ("own.sqlite3", "own.sqlite3-wal")]
    for path in ours:
        path.touch()
        path.chmod(0o644)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(data_dir / "redis" / "redis.sock"))
        make_private(data_dir, elsewhere / "own.sqlite3")
    assert {mode(path) for path in ours} == {0o600}
    assert {mode(path) for path in (data_dir, data_dir / "redis", data_dir / "redis" / "appendonlydir")} == {0o700}
    assert mode(data_dir / "redis" / "redis.sock") == 0o700


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    strangers, link = tmp_path / "strangers.txt", tmp_path / "secret_key"
    strangers.touch()
    strangers.chmod(0o644)
    link.symlink_to(strangers)
    make_private(tmp_path, tmp_path / "pitlane.sqlite3")
    assert mode(strangers) == 0o644


def test_a_directory_that_is_new_is_private_with_all_above_it_as_it_was(tmp_path: Path) -> None:
    make_private(tmp_path / "new" / "var", None)
    assert mode(tmp_path / "new" / "var") == 0o700


@pytest.mark.parametrize("shared", ["/", "/tmp"])
def test_a_directory_for_everybody_is_refused_and_stays_as_it_is(shared: str) -> None:
    before = mode(Path(shared))
    with pytest.raises(ConfigurationError, match=f"PITLANE_DATA_DIR {shared} .*everybody"):
        make_private(Path(shared), None)
    assert mode(Path(shared)) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else for a moment")
@pytest.mark.skipif(sys.platform != "linux", reason="takes another user's rights as Linux does")
def test_somebody_elses_directory_is_refused_with_a_sentence() -> None:
    # Not below pytest's own folder, into which nobody else may look.
    with tempfile.TemporaryDirectory() as folder:
        theirs = Path(folder)
        theirs.chmod(0o755)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(ConfigurationError, match=r"PITLANE_DATA_DIR .* belongs to somebody else"):
                make_private(theirs, None)
            with pytest.raises(ConfigurationError, match=r"PITLANE_DATA_DIR .* belongs to somebody else"):
                make_private(theirs / "new", None)
        finally:
            os.seteuid(0)


def test_many_may_use_a_database_and_one_may_have_it_alone(tmp_path: Path) -> None:
    database = tmp_path / "new" / "pitlane.sqlite3"
    with in_use(database), in_use(database), pytest.raises(DatabaseInUse, match="stop the server"), alone(database):
        pass
    with alone(database), pytest.raises(DatabaseInUse, match="is being restored"), in_use(database):
        pass
    with in_use(None), in_use(database):
        pass
