from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overnight import lockfile
from overnight.lockdiff import Change, changes
from tests.overnight.overlays import OWN, layered

LOCK = lockfile.load()


def differences(folder: Path, **more: Any) -> list[str]:
    return [each.words("A", "B") for each in changes(LOCK, layered(folder, **more).lock)]


def test_a_lock_differs_from_itself_nowhere() -> None:
    assert changes(LOCK, lockfile.load()) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"endpoints": {"anthropic": {"url": "https://x.example"}}},
            "providers.zai.endpoints.anthropic.url: https://api.z.ai/api/anthropic in A, https://x.example in B",
        ),
        ({"title": "Z"}, "providers.zai.title: Z.ai GLM coding plan (international) in A, Z in B"),
        ({"models": {"glm-5.3": None}}, "providers.zai.models.glm-5.3: only in A: PyPI project glm-launch"),
        ({"models": {"glm-6": {"provenance": OWN}}}, "providers.zai.models.glm-6: only in B: our own measurement"),
        (
            {"headers": {"bearer": {"provenance": OWN}}},
            "(2026-11-22, official) in A, our own measurement (2026-11-20, measured) in B",
        ),
        ({"errors": []}, 'providers.zai.errors: only in A: {"kind": "billing"'),
    ],
)
def test_a_difference_is_a_sentence(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    assert any(said in line for line in differences(tmp_path, providers={"zai": more}))


def test_one_change_is_told_once(tmp_path: Path) -> None:
    assert differences(tmp_path, providers={"zai": {"title": "Z"}}) == [
        f"providers.zai.title: {LOCK.providers['zai'].title} in A, Z in B"
    ]
    assert len(differences(tmp_path, providers={"zai": {"harnesses": {"goose": None}}})) == 1


def test_two_providers_can_be_compared() -> None:
    found = changes(LOCK.providers["moonshot"], LOCK.providers["moonshot-cn"])
    assert (
        Change("endpoints.anthropic.url", "https://api.moonshot.ai/anthropic", "https://api.moonshot.cn/anthropic")
        in found
    )
    assert not [each for each in found if each.place.startswith(("errors", "models", "harnesses"))]
