"""The edge: what `gserver serve` and `gserver exec` are made of."""
