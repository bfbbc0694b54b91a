"""The suite that uses ``gserver probe``: ``python -m bench``.

scenarios/        users and shapes, small files for scenario_run.py (``bench run``)

peers/            other servers with a connection limit, one small file each
peers/servers/    the programs behind the peers that are written in Python
peers/tokio/      the article's two servers in Rust
experiments/      the questions put to each of them, one small file each
compare.py        blocks in ABBA order, a fresh server for each (``bench compare``)
stats.py          ratios, bootstrap intervals, the A/A band: pure functions
results.py        what a comparison found, to and from JSON
table.py          the same as text;  page.py  as one page of HTML with its plots
"""
