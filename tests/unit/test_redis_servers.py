"""Data is opened by the server that wrote it, or by a newer one."""

from pathlib import Path

import pytest

from embedded.redis_servers import Make, Server, choose_server, read_make

OURS = Server("/usr/bin/redis-server", Make("Redis", (7, 0)))
VALKEY = Server("/usr/bin/valkey-server", Make("Valkey", (8, 1)))
BUNDLED = Server("/venv/bin/redis-server", Make("Redis", (8, 2)))
BUNDLED_VALKEY = Server("/venv/bin/valkey-server", Make("Valkey", (9, 1)))


def test_the_first_that_is_new_enough_is_chosen_where_there_is_no_data() -> None:
    too_old = Server("/usr/local/bin/redis-server", Make("Redis", (6, 2)))
    assert choose_server([OURS, BUNDLED]) is OURS
    assert choose_server([too_old, BUNDLED]) is BUNDLED
    assert choose_server([too_old]) is None
    assert choose_server([]) is None


def test_an_older_server_that_was_installed_since_is_passed_over() -> None:
    assert choose_server([OURS, BUNDLED], Make("Redis", (8, 2))) is BUNDLED
    assert choose_server([OURS, BUNDLED], Make("Redis", (7, 0))) is OURS
    assert choose_server([OURS, BUNDLED], Make("Redis", (8, 4))) is None


@pytest.mark.parametrize(
    ("reader", "data", "reads"),
    [
        (OURS, Make("Redis", (7, 2)), False),
        (BUNDLED, Make("Redis", (7, 2)), True),
        (BUNDLED, Make("Redis", (10, 0)), False),
        (VALKEY, Make("Redis", (7, 2)), True),
        (VALKEY, Make("Redis", (8, 2)), False),
        (VALKEY, Make("Valkey", (9, 1)), False),
        (BUNDLED_VALKEY, Make("Valkey", (8, 1)), True),
        (BUNDLED_VALKEY, Make("Redis", (8, 2)), True),
        (BUNDLED, Make("Valkey", (8, 1)), False),
    ],
)
def test_a_server_reads_its_own_older_files_and_valkey_those_of_redis(reader: Server, data: Make, reads: bool) -> None:
    assert reader.make.reads(data) is reads


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        (b"REDIS0012\xfa\x09redis-ver\x058.2.3\xfa\x0aredis-bits\xc0\x40", Make("Redis", (8, 2))),
        (b"REDIS0010\xfa\x09redis-ver\x067.0.15\xfa\x0aredis-bits\xc0\x40", Make("Redis", (7, 0))),
        (b"VALKEY080\xfa\x0avalkey-ver\x059.1.2\xfa\x0aredis-bits\xc0\x40", Make("Valkey", (9, 1))),
        (b"REDIS0012\xfe\x00", None),
        (b"", None),
    ],
)
def test_a_file_says_what_wrote_it(tmp_path: Path, beginning: bytes, expected: Make | None) -> None:
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.manifest").write_text("…")
    (folder / "appendonly.aof.10.base.rdb").write_bytes(beginning)
    # The base before it, which the server had no time to remove.
    (folder / "appendonly.aof.9.base.rdb").write_bytes(b"REDIS0009\xfa\x09redis-ver\x056.2.0")
    assert read_make(tmp_path) == expected


def test_a_folder_without_data_was_written_by_nobody(tmp_path: Path) -> None:
    assert read_make(tmp_path) is None
    (tmp_path / "appendonlydir").mkdir()
    assert read_make(tmp_path) is None
