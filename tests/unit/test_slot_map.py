"""Where a Redis Cluster keeps what, read from its own answer and from its URL."""

import pytest
from redis.crc import key_slot

from infra.slot_map import SlotMap, tag_of
from models.redis_url import ClusterUrl

ANSWER = [
    [10_923, 16_383, ["10.0.0.3", 7003, "id3", []], ["10.0.0.6", 7006, "id6", []]],
    [0, 5_460, ["10.0.0.1", 7001, "id1", []]],
    [5_461, 10_922, ["", 7002, "id2", []]],
]


def test_a_key_lives_where_the_range_of_its_slot_is_served_and_replicas_are_passed_over():
    found = SlotMap.of(ANSWER, asked=("10.0.0.2", 7002))
    by_slot = {key_slot(f"k{n}".encode()): found.home_of(f"k{n}") for n in range(3_000)}
    assert {home for slot, home in by_slot.items() if slot <= 5_460} == {("10.0.0.1", 7001)}
    assert {home for slot, home in by_slot.items() if slot > 10_922} == {("10.0.0.3", 7003)}


def test_a_server_that_does_not_know_its_own_host_is_where_it_was_asked():
    found = SlotMap.of(ANSWER, asked=("somewhere", 7002))
    assert ("somewhere", 7002) in found.addresses


def test_a_slot_that_nobody_serves_has_no_home():
    found = SlotMap.of(ANSWER[1:2], asked=("10.0.0.1", 7001))
    assert {found.home_of(f"k{n}") for n in range(100)} == {("10.0.0.1", 7001), None}
    assert SlotMap.of([], asked=("10.0.0.1", 7001)).home_of("k") is None


def test_keys_of_one_tag_have_one_home():
    found = SlotMap.of(ANSWER, asked=("10.0.0.2", 7002))
    assert len({found.home_of(f"pitlane:{{presence-7}}:{n}") for n in range(100)}) == 1
    assert tag_of("pitlane:{presence-7}:statuses") == "presence-7"


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("redis+cluster://one", [("one", 6379)]),
        ("redis+cluster://one:7000,two:7001", [("one", 7000), ("two", 7001)]),
        ("rediss+cluster://me:s%40crt@one:7000,[::1]:7001/", [("one", 7000), ("::1", 7001)]),
    ],
)
def test_a_clusters_url_names_its_servers(url, addresses):
    assert ClusterUrl.of(url).addresses == tuple(addresses)


def test_a_clusters_url_says_as_whom_to_come_and_whether_in_secret():
    found = ClusterUrl.of("rediss+cluster://me:s%40crt@one:7000")
    assert (found.is_encrypted, found.username, found.password) == (True, "me", "s@crt")
    assert ClusterUrl.of("redis+cluster://one") == ClusterUrl(False, None, None, (("one", 6379),))


@pytest.mark.parametrize("url", ["redis+cluster://", "redis+cluster://one,,two", "redis+cluster://one:port"])
def test_a_clusters_url_that_cannot_be_read_is_an_error(url):
    with pytest.raises(ValueError):
        ClusterUrl.of(url)
