from __future__ import annotations

import pytest

from overnight.env import Absent, Binding, EnvPatch, Secret, Value

PATCH = EnvPatch([("A", Value("1")), ("B", Secret("zai")), ("C", Absent("leaks")), ("D", Value(""))])


def test_every_binding_is_one_of_three_kinds() -> None:
    assert PATCH.values() == {"A": "1", "D": ""}
    assert PATCH.secrets() == {"B": "zai"}
    assert PATCH.absent() == {"C": "leaks"}
    assert [name for name, _ in PATCH] == ["A", "B", "C", "D"]


def test_it_prints_without_any_key() -> None:
    assert repr(PATCH) == "EnvPatch(A=1, B=<provider:zai>, C=absent: leaks, D=)"


def test_a_name_bound_twice_cannot_be_constructed() -> None:
    for second in (Value("1"), Value("2"), Secret("zai"), Absent("why")):
        with pytest.raises(ValueError, match="A"):
            EnvPatch([("A", Value("1")), ("A", second)])
        with pytest.raises(ValueError, match="A"):
            PATCH.joined(EnvPatch([("A", second)]))


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_a_name_that_execve_cannot_take_is_refused(name: str) -> None:
    binding: Binding = Value("1")
    with pytest.raises(ValueError, match="variable"):
        EnvPatch([(name, binding)])


def test_joining_makes_a_copy() -> None:
    joined = PATCH.joined(EnvPatch([("E", Value("5"))]))
    assert (joined["E"], joined["B"]) == (Value("5"), Secret("zai"))
    assert "E" not in PATCH


def test_equal_patches_have_equal_hashes() -> None:
    again = EnvPatch(list(PATCH))
    assert again == PATCH
    assert hash(again) == hash(PATCH)
    assert EnvPatch([("A", Value("1"))]) != EnvPatch([("A", Value("2"))])
    assert PATCH != {"A": "1"}
