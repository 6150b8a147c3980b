"""Every harness this project can drive, by name."""

from __future__ import annotations

from overnight.harnesses import claude_code, codex, goose, opencode, scripted
from overnight.harnesses.protocol import Harness

HARNESSES: dict[str, Harness] = {module.NAME: module for module in (claude_code, codex, goose, opencode, scripted)}
