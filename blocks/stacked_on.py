"""What an attempt of a stacked task is told of the run it starts from, with the machine where that run lies."""

from __future__ import annotations

from blocks.ssh_host import SSHHost
from overnight.below import Below


class StackedOn(Below):
    """Set by a batch that spreads its tasks."""

    machine: SSHHost
