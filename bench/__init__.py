"""The suite around ``gserver probe``: peers, comparison, scenarios.  Run as ``python -m bench``.

peers/            other servers with a connection limit, one small file each
peers/servers/    the programs behind the peers that are written in Python
peers/tokio/      the article's two servers in Rust
stats.py          medians, bootstrap intervals, the A/A band: pure functions
usage.py          CPU and memory of a process tree, sockets in TIME_WAIT
environment.py    what a figure's reader must know about the machine
"""
