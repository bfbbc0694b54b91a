"""The suite around ``gserver probe``: peers, comparison, scenarios.  Run as ``python -m bench``.

peers/            other servers with a connection limit, one small file each
peers/servers/    the programs behind the peers that are written in Python
peers/tokio/      the article's two servers in Rust
experiments/      the questions put to each of them, one small file each
compare.py        blocks in ABBA order, a fresh server for each
stats.py          medians, bootstrap intervals, the A/A band: pure functions
results.py        what a comparison found, to and from JSON;  table.py  the same as text
"""
