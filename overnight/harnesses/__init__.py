"""Every harness this project can drive, by name."""

from __future__ import annotations

from overnight.harnesses import claude_code, copilot, goose, opencode, pi, qwen, scripted
from overnight.harnesses.protocol import Harness

_ALL = (claude_code, copilot, goose, opencode, pi, qwen, scripted)

HARNESSES: dict[str, Harness] = {module.NAME: module for module in _ALL}
