"""Handlers that come with the package. A handler is any callable ``(socket, address)``."""
