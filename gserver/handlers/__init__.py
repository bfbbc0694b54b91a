"""Handlers that come with the package, and adapters for those written for something else. A
handler is any callable ``(socket, address)``."""
