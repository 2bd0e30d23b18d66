"""Real server processes, real sockets, a real browser: the contract as clients see it."""
