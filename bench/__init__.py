"""The suite that uses ``gserver probe``, and the other figures of this project (``-m bench``).

scenarios/        users and shapes, small files for scenario_run.py (``bench run``)

peers/            other servers with a connection limit, one small file each
peers/servers/    the programs behind the peers that are written in Python
peers/tokio/      the article's two servers in Rust
experiments/      the questions put to each of them, one small file each
plan.py           what a comparison will do, and how long that takes
compare.py        doing it: a fresh server for each block, ABBA (``bench compare``)
stats.py          ratios, bootstrap intervals, the A/A band;  ratios.py  who is compared with whom
results.py        what a comparison found, to and from JSON (results/: those that the README quotes)
overview.py       the one table of it;  table.py  as text;  page.py  as one page of HTML
overview_plot.py  the same as a picture;  readme.py  in the README (``bench readme``)

*_cost.py, held_memory.py, legacy_settle.py    one figure each (``bench reject-cost`` and so on)
costs.py          what these share: the stated time, progress, JSON, Ctrl-C
pairs.py, processes.py, flood.py, holder.py, floor.py    and what they measure with
"""
