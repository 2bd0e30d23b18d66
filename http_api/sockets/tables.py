"""Who is connected to this node, by account."""

from typing import Generic, TypeVar

from http_api.sockets.connection import Connection

C = TypeVar("C", bound=Connection)


class ConnectionTable(Generic[C]):
    """Connections of one kind by account; most accounts have one."""

    def __init__(self) -> None:
        self._by_account: dict[str, tuple[C, ...]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, connection: C) -> None:
        """Add one."""
        self._by_account[connection.account_id] = (*self.of(connection.account_id), connection)
        self._count += 1

    def remove(self, connection: Connection) -> None:
        """Remove one; idempotent."""
        before = self.of(connection.account_id)
        rest = tuple(other for other in before if other is not connection)
        self._count -= len(before) - len(rest)
        if rest:
            self._by_account[connection.account_id] = rest
        else:
            self._by_account.pop(connection.account_id, None)

    def of(self, account_id: str) -> tuple[C, ...]:
        """Return the connections of one account."""
        return self._by_account.get(account_id, ())

    def all(self) -> list[C]:
        """Return everybody as of now, safe to go through while they come and go."""
        return [connection for connections in self._by_account.values() for connection in connections]
