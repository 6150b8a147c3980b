"""What is read off the hosts after a schedule, where a fault left it half-done."""

from __future__ import annotations

import json
from pathlib import Path

from tests.chaos.seen import agents


def test_an_agent_killed_before_its_first_word_never_began(tmp_path: Path) -> None:
    start = {"what": "start", "at": 1.0, "boot": "b"}
    (tmp_path / "t0.notes").write_text(json.dumps(start) + "\n")
    (tmp_path / "t1.notes").touch()
    assert list(agents(tmp_path)) == ["t0"]
