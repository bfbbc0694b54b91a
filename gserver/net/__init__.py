"""Sockets. Given a loop where they need one; nothing here imports gevent."""
