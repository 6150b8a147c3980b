"""Every harness this project can drive, by name."""

from __future__ import annotations

from overnight.harnesses import claude_code, codex, copilot, goose, opencode, pi, qwen, scripted
from overnight.harnesses.declared import DECLARED
from overnight.harnesses.protocol import Harness

_MODULES: tuple[Harness, ...] = (claude_code, codex, copilot, goose, opencode, pi, qwen, scripted)
HARNESSES: dict[str, Harness] = {each.NAME: each for each in (*_MODULES, *DECLARED)}
