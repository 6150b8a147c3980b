"""The guards against real diffs: each finds its own sort and nothing in an honest one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from overnight.git import Repo
from overnight.handover import Finding, Guards
from overnight.scrutiny import judge
from tests.overnight.nights import SEARCH_PATH, git, make_repo

KEY = "sk-rehearsal-fake-0123456789abcdef"
GITHUB = "ghp_" + "a1B2" * 9
Make = Callable[[Path], object]


def write(name: str, text: str | bytes = "text\n") -> Make:
    def make(place: Path) -> None:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


def link(name: str, target: str) -> Make:
    return lambda place: (place / name).symlink_to(target)


def found_in(place: Path, *steps: Make, guards: Guards | None = None, key: str = KEY) -> dict[str, Finding]:
    """What the guards find in commits, one a step, made in a fresh repository; by guard."""
    repo = make_repo(place)
    write("tests/test_app.py", "def test(): pass\n")(place)
    (place / "sub").mkdir()
    git(place, "add", "-A")
    git(place, "commit", "-qm", "a test")
    base = git(place, "rev-parse", "HEAD")
    for step in steps:
        step(place)
        git(place, "add", "-A")
        git(place, "commit", "-qm", "step")
    findings = judge(repo, base, git(place, "rev-parse", "HEAD"), guards or Guards(), key)
    return {each.guard: each for each in findings}


def test_an_honest_diff_is_let_pass(tmp_path: Path) -> None:
    honest = write("src/app.py", "def run(password: str) -> None:\n    token = password\n    key = 'not a key'\n")
    more = write("tests/test_app.py", "def test(): pass\ndef test_more(): pass\n")
    assert found_in(tmp_path / "r", honest, more, link("latest", "src/app.py")) == {}


@pytest.mark.parametrize(
    ("step", "guard", "policy", "place"),
    [
        (write("config.py", f"x = 1\nTOKEN = '{GITHUB}'\n"), "secrets", "hold", "config.py:2 in "),
        (write("k.pem", "-----BEGIN RSA PRIVATE KEY-----\n"), "secrets", "hold", "k.pem:1 in "),
        (write(".env", f"KEY={KEY}\n"), "own_key", "refuse", ".env:1 in "),
        (write("blob.bin", b"\0\1" + KEY.encode() + b"\0"), "own_key", "refuse", "blob.bin:1 in "),
        (lambda place: (place / "tests/test_app.py").unlink(), "deleted_tests", "hold", "tests/test_app.py"),
        (write("tests/test_app.py", ""), "deleted_tests", "hold", "tests/test_app.py"),
        (
            lambda place: (place / "tests/test_app.py").rename(place / "app.old"),
            "deleted_tests",
            "hold",
            "tests/test_app.py",
        ),
        (link("out", "../../etc"), "symlinks", "refuse", "out -> ../../etc"),
        (link("abs", "/etc/passwd"), "symlinks", "refuse", "abs -> /etc/passwd"),
        (link("hooks", ".git/hooks"), "symlinks", "refuse", "hooks -> .git/hooks"),
        (link("by-way-of", "tests/../../x"), "symlinks", "refuse", "by-way-of -> tests/../../x"),
        (write(".github/workflows/ci.yml"), "workflows", "hold", ".github/workflows/ci.yml"),
        (write(".gitlab-ci.yml"), "workflows", "hold", ".gitlab-ci.yml"),
        (write("deep/Jenkinsfile"), "workflows", "hold", "deep/Jenkinsfile"),
        (write("big.bin", b"x" * 6_000_000), "size", "note", "big.bin 6000000 bytes"),
        (write(".gitmodules", "[submodule]\n"), "submodules", "hold", ".gitmodules"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_guard_names_its_own_sort(tmp_path: Path, step: Make, guard: str, policy: str, place: str) -> None:
    found = found_in(tmp_path / "r", step)
    assert list(found) == [guard]
    assert (found[guard].policy, found[guard].count) == (policy, 1)
    assert found[guard].places[0].startswith(place)


def test_a_secret_never_stands_in_what_is_found(tmp_path: Path) -> None:
    found = found_in(tmp_path / "r", write("a.py", f"a = '{GITHUB}'\nb = '{KEY}'\n"))
    assert set(found) == {"secrets", "own_key"}
    said = "".join(each.model_dump_json() for each in found.values())
    assert GITHUB not in said
    assert KEY not in said
    assert found["secrets"].places[0].endswith(": GitHub Token")


def test_a_secret_that_a_later_commit_took_away_is_delivered_all_the_same(tmp_path: Path) -> None:
    found = found_in(tmp_path / "r", write("a.py", f"{GITHUB}\n"), write("a.py", "clean\n"))
    first = git(tmp_path / "r", "rev-parse", "HEAD~1")
    assert found["secrets"].places == (f"a.py:1 in {first[:10]}: GitHub Token",)


def test_a_secret_in_a_message_and_on_a_branch_that_was_merged_is_seen(tmp_path: Path) -> None:
    def aside(place: Path) -> None:
        git(place, "checkout", "-qb", "side")
        write("side.py", f"{GITHUB}\n")(place)
        git(place, "add", "-A")
        git(place, "commit", "-qm", f"use {KEY}")
        write("side.py", "gone\n")(place)
        git(place, "commit", "-qam", "gone")
        git(place, "checkout", "-q", "main")
        git(place, "merge", "-q", "--no-ff", "-m", "merge", "side")
        write("more.txt")(place)

    found = found_in(tmp_path / "r", aside)
    assert found["own_key"].places[0].startswith("(commit message):1 in ")
    assert found["secrets"].places[0].startswith("side.py:1 in ")


def test_lines_that_look_like_a_patch_do_not_mislead(tmp_path: Path) -> None:
    text = f"++ b/elsewhere.py\n@@ -0,0 +1,9 @@\ncommit {'0' * 40}\ndiff --git a/x b/x\n-- a/x\n{GITHUB}\n"
    found = found_in(tmp_path / "r", write("a.patch", text), write("a.patch", text.replace(GITHUB, "-- a\n++ b")))
    first = git(tmp_path / "r", "rev-parse", "HEAD~1")
    assert found["secrets"].places == (f"a.patch:6 in {first[:10]}: GitHub Token",)


def test_a_line_longer_than_a_piece_keeps_its_number(tmp_path: Path) -> None:
    text = "x" * 2_500_000 + f" {KEY}\nshort\n{GITHUB}\n"
    found = found_in(tmp_path / "r", write("min.js", text))
    assert found["own_key"].places[0].startswith("min.js:1 in ")
    assert found["secrets"].places[0].startswith("min.js:3 in ")


@pytest.mark.parametrize(
    "name", [b"a\nguard b (note)", b"\x1b[2Jz", b"\xff\xfe", "身 份".encode(), b'q"uote\\', b"tab\t"]
)
def test_hostile_names_are_written_out(tmp_path: Path, name: bytes) -> None:
    def hostile(place: Path) -> None:
        with open(os.fsencode(place) + b"/" + name, "wb") as file:
            file.write(f"{GITHUB}\n".encode())

    found = found_in(tmp_path / "r", hostile, guards=Guards(allow_paths=("src/**",)))
    assert set(found) == {"secrets", "paths"}
    for each in found.values():
        assert each.places[0].isprintable()
        assert each.model_dump_json()
    shown = name.decode("utf-8", "backslashreplace")
    if shown.isprintable():
        assert found["paths"].places == (shown,)
        assert found["secrets"].places[0].startswith(f"{shown}:1 in ")


def test_only_what_is_allowed_may_change(tmp_path: Path) -> None:
    steps = (write("src/deep/a.py"), write("docs/a.md"), write("srcs/b.py"))
    found = found_in(tmp_path / "r", *steps, guards=Guards(allow_paths=("src/**", "*.md")))
    assert found["paths"].places == ("docs/a.md", "srcs/b.py")
    assert found_in(tmp_path / "s", *steps, guards=Guards(allow_paths=("src/", "docs/", "srcs/"))) == {}


def test_a_submodule_is_named_though_its_commit_is_not_here(tmp_path: Path) -> None:
    def gitlink(place: Path) -> None:
        git(place, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendored")
        git(place, "commit", "-qm", "link")
        write("x")(place)

    def kept(place: Path) -> None:
        gitlink(place)
        (place / "vendored").mkdir()

    assert found_in(tmp_path / "r", kept)["submodules"].places == ("vendored",)


def test_many_places_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    found = found_in(tmp_path / "r", write("a.py", f"{GITHUB}\n" * 50), guards=Guards(max_added_lines=10))
    assert (found["secrets"].count, len(found["secrets"].places)) == (50, 20)
    assert found["size"].seen == "50 lines added, more than 10"


def test_a_users_own_configuration_of_diffs_changes_nothing(tmp_path: Path) -> None:
    def odd(place: Path) -> None:
        for setting in ("diff.noprefix=true", "diff.mnemonicPrefix=true", "color.ui=always", "diff.interHunkContext=9"):
            git(place, "config", *setting.split("=", 1))
        write(".gitattributes", "*.py -diff\n")(place)
        write("a.py", f"{GITHUB}\n")(place)

    assert found_in(tmp_path / "r", odd)["secrets"].places[0].startswith("a.py:1 in ")


def test_a_diff_that_cannot_be_read_is_held(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r")
    [found] = judge(Repo(repo.path, SEARCH_PATH), "0" * 40, "HEAD", Guards())
    assert (found.guard, found.policy) == ("unread", "hold")
    assert "could not be read" in found.seen


def test_nothing_is_checked_out_and_no_filter_runs(tmp_path: Path) -> None:
    place, ran = tmp_path / "r", tmp_path / "ran"

    def armed(place: Path) -> None:
        write(".gitattributes", "*.py diff=evil filter=evil\n")(place)
        write("a.py", "text\n")(place)

    found_in(place, armed)
    for name in ("diff.evil.command", "diff.evil.textconv", "filter.evil.smudge", "filter.evil.clean"):
        git(place, "config", name, f"touch {ran};")
    before = subprocess.run(["ls", "-laR", place / "tests"], capture_output=True, check=True).stdout
    judge(Repo(place, SEARCH_PATH), git(place, "rev-parse", "HEAD~1"), "HEAD", Guards(), KEY)
    assert not ran.exists()
    assert subprocess.run(["ls", "-laR", place / "tests"], capture_output=True, check=True).stdout == before
