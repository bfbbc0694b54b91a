"""The suite that uses ``gserver probe``: scenarios, peers, the comparison and its reports."""
