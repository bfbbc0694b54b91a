"""gserver: a gevent TCP server that knows when it is full."""
