"""Handlers: built in, and adapters for those written for something else."""
