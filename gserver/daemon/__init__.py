"""The daemon: what `gserver serve` is made of."""
