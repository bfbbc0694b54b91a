"""Decisions: who gets in. No sockets, no gevent, no clock: time is an argument."""
