"""The servers behind the peers written in Python: each as one would write it from the manual.

Each runs in the foreground, on loopback, until it is ended, and echoes what its clients send.
"""
