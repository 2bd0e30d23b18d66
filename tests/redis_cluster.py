"""A real Redis Cluster for tests: three servers on loopback, each holding a third of the slots, thrown away at the end."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from embedded.redis_child import ending_with_parent
from embedded.redis_servers import server_command
from tests.services import POLL_INTERVAL_S, START_ATTEMPTS, START_TIMEOUT_S, STOP_TIMEOUT_S, free_port

SERVERS = 3
SLOTS = 16_384
NODE_TIMEOUT_MS = 2_000
PORT_MAX = 55_535
"""A server's own bus listens 10,000 ports above it (redis.io, "Scale with Redis Cluster")."""


class ClusterServer:
    """One server of a cluster; ``kill`` and ``start`` again for tests of what heals."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on its port and return once it answers; raises ``RuntimeError`` when it does not."""
        server = [
            *server_command(self._folder),
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self._folder),
        ]
        server += ["--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{self.port}.conf"]
        # What a server that is away does not hold is served on, as docs/settings.md advises.
        server += ["--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-require-full-coverage", "no"]
        server += ["--appendonly", "no", "--save", ""]
        with (self._folder / f"{self.port}.log").open("ab") as output:
            self._process = subprocess.Popen(
                ending_with_parent(server), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"no Redis on port {self.port}: {self._process.poll()}")
            time.sleep(POLL_INTERVAL_S)

    def kill(self) -> None:
        """End it with SIGKILL and return once it is gone; what it held is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=START_TIMEOUT_S, decode_responses=True)

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


class Cluster:
    """Servers that know each other; ``url`` names only the first, which tells of the others."""

    def __init__(self, servers: list[ClusterServer]) -> None:
        self.servers = servers
        self.url = f"redis+cluster://127.0.0.1:{servers[0].port}"

    def meet(self) -> None:
        """Introduce the servers to each other, spread the slots, and return once all agree."""
        for number, server in enumerate(self.servers):
            first, last = number * SLOTS // len(self.servers), (number + 1) * SLOTS // len(self.servers) - 1
            with server.client() as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", self.servers[0].port)
        self.await_agreement()

    def await_agreement(self) -> None:
        """Return once every server says that all slots are served and that it knows all the others."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not all(self._agrees(server) for server in self.servers):
            if time.monotonic() > deadline:
                raise RuntimeError("the servers of the cluster do not agree")
            time.sleep(POLL_INTERVAL_S)

    def server_of(self, key: str) -> ClusterServer:
        """Return which server holds a key now."""
        with self.servers[0].client() as client:
            slot = client.execute_command("CLUSTER KEYSLOT", key)
            for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER SLOTS"):
                if first <= slot <= last:
                    return next(server for server in self.servers if server.port == port)
        raise RuntimeError(f"nobody holds slot {slot}")

    def move(self, key: str, to: ClusterServer) -> None:
        """Give the slot of ``key``, with everything in it, to another server (redis.io, CLUSTER SETSLOT)."""
        source = self.server_of(key)
        with source.client() as old, to.client() as new:
            slot = old.execute_command("CLUSTER KEYSLOT", key)
            new_id, old_id = new.execute_command("CLUSTER MYID"), old.execute_command("CLUSTER MYID")
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old_id)
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new_id)
            while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
                old.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5_000, "KEYS", *keys)
            for client in (new, old):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", new_id)

    def _agrees(self, server: ClusterServer) -> bool:
        with server.client() as client:
            told = client.cluster("INFO")
        return told["cluster_state"] == "ok" and int(told["cluster_known_nodes"]) == len(self.servers)


@contextmanager
def redis_cluster() -> Iterator[Cluster]:
    """Run a cluster inside the block."""
    with tempfile.TemporaryDirectory(prefix="pitlane-cluster-") as scratch, ExitStack() as stack:
        servers = []
        while len(servers) < SERVERS:
            servers.append(_started(Path(scratch)))
            stack.callback(servers[-1].kill)
        cluster = Cluster(servers)
        cluster.meet()
        yield cluster


def _started(folder: Path) -> ClusterServer:
    for _ in range(START_ATTEMPTS):
        port = free_port()
        if port > PORT_MAX:
            port -= PORT_MAX // 2
        server = ClusterServer(folder, port)
        try:
            server.start()
        except RuntimeError as error:
            failure = error
        else:
            return server
    raise failure
