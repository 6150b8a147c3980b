"""Seeded faults over real supervised runs on three hosts: `python -m tests.chaos --help`."""
