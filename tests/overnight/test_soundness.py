from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overnight import lockfile
from overnight.soundness import flaws
from tests.overnight.overlays import layered, settled

LOCK = lockfile.load()
CC = "providers.zai.harnesses.claude-code"


def wired(**more: Any) -> dict[str, Any]:
    return {"providers": {"zai": {"harnesses": {"claude-code": more}}}}


def test_the_lock_contradicts_itself_nowhere() -> None:
    assert flaws(LOCK) == []


def test_nor_does_it_with_addresses_and_models_of_ones_own(tmp_path: Path) -> None:
    assert flaws(settled(tmp_path).lock) == []


@pytest.mark.parametrize(
    ("changes", "place", "problem"),
    [
        (
            {"providers": {"zai": {"headers": {"bearer": {"accepted": "no"}}}}},
            f"{CC}.set.ANTHROPIC_AUTH_TOKEN",
            "sends Authorization: Bearer, which the provider refuses",
        ),
        ({"providers": {"zai": {"headers": {"bearer": None}}}}, f"{CC}.set.ANTHROPIC_AUTH_TOKEN", "not known to take"),
        (
            {"providers": {"zai": {"headers": {"bearer": {"accepted": "unverified"}}}}},
            f"{CC}.provenance.confidence",
            "is called official",
        ),
        (wired(set={"ANTHROPIC_AUTH_TOKEN": None}), f"{CC}.set", "exactly one variable"),
        (wired(empty={"ANTHROPIC_API_KEY": None}), CC, "two keys may be sent"),
        (wired(empty={"ANTHROPIC_MODEL": "why"}), CC, "ANTHROPIC_MODEL is bound twice"),
        (wired(set={"ANTHROPIC_MODEL": "{modle}"}), f"{CC}.set.ANTHROPIC_MODEL", "unknown placeholder {modle}"),
        (
            {"harnesses": {"opencode": {"env": {"OPENCODE_CONFIG_CONTENT": '{"a":{"{modle}":{},"b":"{env:B}"}}'}}}},
            "harnesses.opencode.env.OPENCODE_CONFIG_CONTENT",
            "unknown placeholder {modle}",
        ),
        (
            {"harnesses": {"codex": {"flags": ["--config=a={b={retrys}}"]}}},
            "harnesses.codex.flags",
            "unknown placeholder {retrys}",
        ),
        ({"harnesses": {"codex": {"timing": None}}}, "providers.moonshot.harnesses.codex", "nothing says how long"),
        (wired(set={"ANTHROPIC_AUTH_TOKEN": "x", "MY_KEY": "{key}"}), f"{CC}.set.MY_KEY", "reads no key from it"),
        ({"harnesses": {"claude-code": {"timing": {"retries": 9}}}}, "harnesses.claude-code.timing", "1205 s"),
        ({"harnesses": {"claude-code": {"timing": None}}}, CC, "nothing says how long"),
        ({"harnesses": {"goose": {"probe": {"total_s": 5}}}}, "harnesses.goose.probe", "not below its total_s"),
        (
            {"harnesses": {"claude-code": {"ranges": {"API_TIMEOUT_MS": {"most": 1}}}}},
            "harnesses.claude-code.ranges.API_TIMEOUT_MS",
            "least is above most",
        ),
        ({"known_bad": {"quoted-key": {"breaks": "providers.*.keys"}}}, "known_bad.quoted-key.breaks", "has no"),
        (
            {"known_bad": {"quoted-key": {"match": {"providers": ["zia"]}}}},
            "known_bad.quoted-key.match",
            "unknown provider 'zia'",
        ),
        (
            {"known_bad": {"quoted-key": {"match": {"harnesses": ["claude"]}}}},
            "known_bad.quoted-key.match",
            "unknown harness 'claude'",
        ),
        ({"known_bad": {"quoted-key": {"match": {"variables": []}}}}, "known_bad.quoted-key.match", "no variable"),
    ],
)
def test_a_contradiction_is_named_by_place(tmp_path: Path, changes: dict[str, Any], place: str, problem: str) -> None:
    found = [each for each in flaws(layered(tmp_path, **changes).lock) if each.place == place]
    assert [problem in each.problem for each in found].count(True) == 1
    assert all(each.mend for each in found)
