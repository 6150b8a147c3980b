"""Choices of a form: what the lock can start, and nothing else."""

from __future__ import annotations

import re

import pytest

from overnight import lockfile
from overnight.failures import BadInput
from overnight.form import REPO_SHAPE, choice_of, choices, chosen, name_from
from overnight.harnesses import HARNESSES
from overnight.route import Route
from overnight.spec import BatchFile

LOCK = lockfile.load()


def test_every_choice_is_a_route_of_the_lock_and_back() -> None:
    for choice in choices(LOCK):
        route = Route(host="box", **chosen(choice, LOCK, "route"))
        assert route.harness in HARNESSES
        assert route.model in LOCK.providers[route.provider].models
        assert route.harness in LOCK.providers[route.provider].harnesses
        assert choice_of(route) == choice


def test_a_model_id_with_slashes_survives() -> None:
    parts = chosen("claude-code / openrouter / anthropic/claude-opus-5", LOCK, "route")
    assert parts == {"harness": "claude-code", "provider": "openrouter", "model": "anthropic/claude-opus-5"}


def test_what_needs_no_account_comes_last() -> None:
    stands_in = ["rehearsal" in choice or choice.startswith("scripted") for choice in choices(LOCK)]
    assert stands_in == sorted(stands_in)
    assert any(stands_in)


def test_another_choice_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput) as refused:
        chosen("claude-code / zai / glm-52", LOCK, "route")
    assert (refused.value.where, refused.value.field) == ("parameters", "route")
    assert "claude-code / zai / glm-5.2" in refused.value.mend


@pytest.mark.parametrize(
    ("instruction", "name"),
    [
        ("Add structured logging to server.py, with a test", "add-structured-logging-to-server-py"),
        ("fix", "fix"),
        ("做点什么", "task"),
        ("a" * 100, "a" * 40),
        ("Fix the lock.lock", "fix-the-lock-lock"),
    ],
)
def test_a_name_comes_from_the_first_words_and_fits_a_branch(instruction: str, name: str) -> None:
    assert name_from(instruction) == name
    assert BatchFile(name=name_from(instruction), tasks=({"id": name, "instruction": "x"},)).name == name


@pytest.mark.parametrize("repo", ["https://token@git.example/x", "ssh://me:secret@git.example/x", "http://a:b@c/d"])
def test_a_form_takes_no_url_with_credentials(repo: str) -> None:
    assert re.search(REPO_SHAPE, repo) is None


@pytest.mark.parametrize("repo", ["/srv/git/app.git", "git@github.com:me/x.git", "ssh://git@host/x", "https://host/x"])
def test_a_form_takes_every_other_place(repo: str) -> None:
    assert re.search(REPO_SHAPE, repo) is not None
