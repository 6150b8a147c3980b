from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from overnight.batchfile import MAX_INSTRUCTION_BYTES, load
from overnight.choice import RouteSpec
from overnight.failures import BadInput
from overnight.rehearsal.tapes import load_tapes
from overnight.route import Route
from overnight.spec import BatchFile, BatchSpec, HostSpec, Limits, TaskEntry
from tests.overnight.batchfiles import EXAMPLE, changed, refusal, written


class TestWhatIsRead:
    def test_a_task_is_complete(self, tmp_path: Path) -> None:
        batch = load([written(tmp_path, EXAMPLE)], {})
        first, second = batch.tasks
        assert (batch.name, batch.source) == ("tonight", str(tmp_path / "night.yaml"))
        assert first.route == Route(host="box", harness="claude-code", provider="zai", model="glm-5.2")
        assert second.route == Route(host="box", harness="claude-code", provider="deepseek", model="deepseek-chat")
        assert batch.routes == (first.route, second.route)
        assert (first.limits.quiet_s, first.limits.attempts, first.limits.first_event_s) == (500, 3, 60)
        assert (first.base, first.verify, second.verify) == ("main", "make test", None)
        assert (first.field, second.field) == ("tasks[0]", "tasks[1]")
        assert first.ask_for_commit

    def test_it_survives_a_round_trip(self, tmp_path: Path) -> None:
        batch = load([written(tmp_path, EXAMPLE)], {})
        assert BatchSpec.model_validate_json(batch.model_dump_json()) == batch

    def test_a_task_goes_before_the_defaults(self, tmp_path: Path) -> None:
        own = {"base": "dev", "repo": "ssh://git@box/x.git", "limits": {"quiet_s": None}, "ask_for_commit": False}
        data = changed("tasks/0", {"id": "own", "instruction": "x", **own})
        task = load([written(tmp_path, data)], {}).tasks[0]
        assert (task.base, task.repo, task.ask_for_commit) == ("dev", "ssh://git@box/x.git", False)
        assert (task.limits.quiet_s, task.limits.attempts) == (None, 3)

    def test_paths_are_relative_to_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "specs").mkdir()
        (tmp_path / "specs" / "parser.md").write_bytes(b"\xef\xbb\xbfMend\r\nthe parser\r\n")
        data = changed("tasks/0", {"id": "f", "instruction_file": "specs/parser.md"})
        monkeypatch.chdir("/")
        batch = load([written(tmp_path, data)], {})
        assert batch.tasks[0].instruction == "Mend\nthe parser"
        assert batch.tasks[0].repo == str(tmp_path / "app.git")
        assert batch.hosts["box"].key_file == tmp_path / "id"

    def test_a_tilde_is_the_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "me"))
        data = changed("hosts/box/key_file", "~/.ssh/id")
        data["defaults"]["repo"] = "~/app"
        batch = load([written(tmp_path, data)], {})
        assert batch.hosts["box"].key_file == tmp_path / "me/.ssh/id"
        assert batch.tasks[0].repo == str(tmp_path / "me/app")

    @pytest.mark.parametrize("repo", ["https://git.example/app.git", "ssh://git@box:22/app", "git@box:app.git"])
    def test_a_url_stays_as_it_is(self, tmp_path: Path, repo: str) -> None:
        assert load([written(tmp_path, changed("defaults/repo", repo))], {}).tasks[0].repo == repo

    def test_an_instruction_may_look_like_anything(self, tmp_path: Path) -> None:
        for text in ("--help", "-", "${HOME} $(reboot)", "on", "{key}"):
            data = changed("tasks/0/instruction", text)
            assert load([written(tmp_path, data)], {}).tasks[0].instruction == text

    def test_the_longest_instruction_fits(self, tmp_path: Path) -> None:
        data = changed("tasks/0/instruction", "ä" * (MAX_INSTRUCTION_BYTES // 2))
        assert len(load([written(tmp_path, data)], {}).tasks[0].instruction.encode()) == MAX_INSTRUCTION_BYTES

    def test_windows_line_ends_and_a_byte_order_mark_do_not_matter(self, tmp_path: Path) -> None:
        plain = written(tmp_path, EXAMPLE)
        batch = load([plain], {})
        plain.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
        assert load([plain], {}) == batch


def test_the_quickstart_and_its_tapes_load() -> None:
    folder = Path(__file__).resolve().parents[2] / "deployments"
    names = "PORT KEY_FILE HOST_KEY AGENTS REPO HARNESS"
    variables = {f"REHEARSAL_{name}": f"/{name}" for name in names.split()}
    variables |= {"REHEARSAL_PORT": "22", "REHEARSAL_HOST_KEY": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"}
    batch = load([folder / "quickstart.yaml"], variables)
    asked = [task.instruction for task in batch.tasks]
    tapes = load_tapes(folder / "quickstart.tapes.yaml")
    assert all(any(tape.match in words for words in asked) for tape in tapes)


class TestVariables:
    def test_they_are_filled_in_everywhere_else(self, tmp_path: Path) -> None:
        data = changed("tasks/0", {"id": "t", "instruction": "Print ${WHO}", "verify": "test ${WHO}", "base": "${WHO}"})
        data["hosts"]["box"] |= {"port": "${PORT}", "path": ["/${WHO}/bin"]}
        data["defaults"]["verify"], data["providers"] = "${WHO}", {"zai": {"concurrent": "${MOST}"}}
        batch = load([written(tmp_path, data)], {"WHO": "me", "PORT": "2222", "MOST": "3"})
        assert (batch.tasks[0].base, batch.hosts["box"].port, batch.hosts["box"].path) == ("me", 2222, ("/me/bin",))
        assert (batch.tasks[0].instruction, batch.tasks[0].verify) == ("Print ${WHO}", "test ${WHO}")
        assert (batch.tasks[2].verify, batch.providers["zai"].concurrent) == ("${WHO}", 3)

    def test_what_they_hold_is_not_filled_in_again(self, tmp_path: Path) -> None:
        data = changed("defaults/base", "${A}")
        assert load([written(tmp_path, data)], {"A": "${B}", "B": "x"}).tasks[0].base == "${B}"

    def test_a_host_may_be_called_verify(self, tmp_path: Path) -> None:
        data = changed("hosts/verify", {"address": "${A}", "user": "u", "key_file": "k"})
        assert load([written(tmp_path, data)], {"A": "10.0.0.9"}).hosts["verify"].address == "10.0.0.9"

    def test_one_that_is_not_set_is_named(self, tmp_path: Path) -> None:
        error = refusal(written(tmp_path, changed("hosts/box/path", ["/bin", "${AGENTS}"])))
        assert (error.field, error.problem) == ("hosts.box.path[1]", "${AGENTS} is not set")

    def test_a_key_cannot_be_put_into_a_batch(self, tmp_path: Path) -> None:
        path = written(tmp_path, changed("defaults/base", "${OVERNIGHT_KEY_ZAI}"))
        error = refusal(path, variables={"OVERNIGHT_KEY_ZAI": "sk-secret"})
        assert error.field == "defaults.base"
        assert "sk-secret" not in str(error)

    def test_one_that_is_no_text_is_refused_unshown(self, tmp_path: Path) -> None:
        error = refusal(written(tmp_path, changed("defaults/base", "${A}")), variables={"A": "x\udcff"})
        assert (error.field, error.problem) == ("defaults.base", "${A} is not UTF-8 text")


REFUSED: list[tuple[str, Any, str, str, str]] = [
    # place, value there, field, problem, mend
    ("taks", [], "taks", "unknown key", "Did you mean tasks?"),
    ("schema", 2, "schema", "Input should be 1", "README"),
    ("schema", True, "schema", "is true or false", "README"),
    ("hosts/box/adress", "x", "hosts.box.adress", "unknown key", "Did you mean address?"),
    ("providers", {"zai": {"concurrent": "few"}}, "providers.zai.concurrent", "valid integer", "whole number"),
    ("providers", {"zai": {"each_key": {"per_s": 5}}}, "providers.zai.each_key.per_s", "equal to 60", "README"),
    ("hosts/box/slots", 0, "hosts.box.slots", "greater than or equal to 1", "README"),
    ("hosts/box/slots", True, "hosts.box.slots", "is true or false", "README"),
    ("hosts/box/port", "ssh", "hosts.box.port", "valid integer", "whole number"),
    ("hosts/box/user", ..., "hosts.box", "needs user; or block: NAME, or kind: local", "README"),
    ("hosts/box/block", "mine", "hosts.box", "address, key_file, user cannot stand beside block", "README"),
    ("hosts/box/kind", "local", "hosts.box", "address, key_file, user cannot stand beside kind: local", "README"),
    ("hosts/box/path", ["~/bin"], "hosts.box", "path holds '~/bin'; write folders in full", "README"),
    ("hosts/box/path", "/bin", "hosts.box.path", "valid tuple", "Write a list"),
    ("hosts/Box", {"kind": "local"}, "hosts.Box", "does not fit a branch name", "README"),
    ("hosts/box", None, "hosts.box", "valid dictionary or instance of HostSpec", "keys and values"),
    ("hosts/box/key_file", "~nobody-here/k", "hosts.box.key_file", "leads nowhere", "in full"),
    ("defaults/route/hots", "box", "defaults.route.hots", "unknown key", "Did you mean host?"),
    ("defaults/route/model", 5.2, "defaults.route.model", "valid string", "quotes"),
    ("defaults/limits/quit_s", 5, "defaults.limits.quit_s", "unknown key", "Did you mean quiet_s?"),
    ("defaults/limits/total_s", float("inf"), "defaults.limits.total_s", "finite number", "README"),
    ("defaults/limits/total_s", float("nan"), "defaults.limits.total_s", "finite number", "README"),
    ("defaults/limits/total_s", True, "defaults.limits.total_s", "is true or false", "README"),
    ("defaults/limits", 3, "defaults.limits", "valid dictionary", "keys and values"),
    ("defaults/id", "x", "defaults.id", "unknown key", "Known: approve, ask_for_commit, base"),
    ("defaults/base", "--upload-pack=x", "defaults.base", "begins with -", "README"),
    ("tasks", [], "tasks", "at least 1 item", "README"),
    ("tasks", ..., "tasks", "Field required", "Write it"),
    ("tasks/1", "Add a page", "tasks[1]", "valid dictionary or instance of TaskEntry", "keys and values"),
    ("tasks/1/limits/total", 1, "tasks[1].limits.total", "unknown key", "Did you mean total_s?"),
    ("tasks/1/limits/attempts", 0, "tasks[1].limits.attempts", "greater than or equal to 1", "README"),
    ("tasks/1/route/provder", "zai", "tasks[1].route.provder", "unknown key", "Did you mean provider?"),
    ("tasks/1/route/provider", 4, "tasks[1].route.provider", "valid string", "quotes"),
    ("tasks/1/route/host", "bax", "tasks[1].route.host", "unknown host 'bax'", "Did you mean box?"),
    ("tasks/1/instrution", "x", "tasks[1].instrution", "unknown key", "Did you mean instruction"),
    ("tasks/1/instruction", " \n", "tasks[1].instruction", "is empty", "Say what"),
    ("tasks/1/instruction", ..., "tasks[1]", "give either instruction or instruction_file", "README"),
    ("tasks/1/instruction_file", "x.md", "tasks[1]", "give either instruction or instruction_file", "README"),
    ("tasks/1/instruction", "x" * (MAX_INSTRUCTION_BYTES + 1), "tasks[1].instruction", "130049 bytes", "into a file"),
    ("tasks/1/id", "first", "tasks[1].id", "'first' is also tasks[0]", "own id"),
    ("tasks/1/id", 123, "tasks[1].id", "valid string", "quotes"),
    ("tasks/1/id", True, "tasks[1].id", "valid string", "quotes"),
    ("tasks/1/id", None, "tasks[1].id", "valid string", "quotes"),
    ("tasks/1/repo", "https://me:secret@git.example/x", "tasks[1].repo", "holds credentials", "credential helper"),
    ("tasks/1/repo", "https://secret@git.example/x", "tasks[1].repo", "holds credentials", "credential helper"),
    ("tasks/1/repo", "ssh://me:secret@git.example/x", "tasks[1].repo", "holds credentials", "SSH key"),
    ("tasks/1/repo", "~nobody-here/x", "tasks[1].repo", "leads nowhere", "in full"),
    ("defaults/repo", ..., "tasks[0].repo", "is missing", "defaults.repo"),
    ("defaults/route/model", ..., "tasks[0].route.model", "is missing", "defaults.route.model"),
    ("name", ..., "name", "Field required", "Write it"),
    ("author", "nobody", "author", "should match pattern", "README"),
]


@pytest.mark.parametrize(("place", "value", "field", "problem", "mend"), REFUSED)
def test_a_fault_is_refused_with_file_field_and_mend(
    tmp_path: Path, place: str, value: Any, field: str, problem: str, mend: str
) -> None:
    path = written(tmp_path, changed(place, value))
    error = refusal(path)
    assert (error.where, error.field) == (str(path), field)
    assert problem in error.problem
    assert mend in error.mend
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "name",
    ["", "A", "a b", "a/b", "a..b", ".a", "a.", "-a", "a-", "a--b", "a.lock", "x" * 64, "a\n", "ä", "a~1", "a@{1}"],
)
def test_a_name_that_fits_no_branch_is_refused(tmp_path: Path, name: str) -> None:
    assert refusal(written(tmp_path, changed("tasks/1/id", name))).field == "tasks[1].id"
    assert refusal(written(tmp_path, changed("name", name))).field == "name"


@pytest.mark.parametrize("name", ["a", "0", "a.b", "a-1_2.c", "lock", "a.lock.b", "lock.a", "on", "x" * 63])
def test_other_names_are_taken(tmp_path: Path, name: str) -> None:
    assert load([written(tmp_path, changed("tasks/1/id", name))], {}).tasks[1].id == name


@pytest.mark.parametrize("text", ["- a\n- b\n", "a batch", "", "# only words\n", "7", "null"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "night.yaml"
    path.write_text(text)
    error = refusal(path)
    assert (error.where, error.field, error.problem) == (str(path), "file", "holds no mapping")
    assert "quickstart.yaml" in error.mend


def test_a_syntax_error_and_a_duplicate_key_have_their_line(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_text("name: x\ntasks: [\n")
    assert refusal(path).field == "line 3, column 1"
    path.write_text("name: x\nhosts: {}\nname: y\n")
    assert refusal(path).field == "line 3, column 1"


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read"), (b"\xff", "is not UTF-8"), (b"a\0b", "holds a NUL"), (b"", "is empty")],
)
def test_an_instruction_file_that_cannot_be_used_is_refused(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "x.md").write_bytes(content)
    path = written(tmp_path, changed("tasks/0", {"id": "f", "instruction_file": "x.md"}))
    error = refusal(path)
    assert (error.where, error.field) == (str(path), "tasks[0].instruction_file")
    assert problem in error.problem


def test_a_file_has_to_be_given_once(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    one, two, three = written(tmp_path, EXAMPLE), written(tmp_path, EXAMPLE, "b.yaml"), tmp_path / "a.md"
    assert refusal().where == "command line"
    assert (refusal(one, two).where, refusal(one, two).problem) == (str(two), "more than one YAML file")
    assert refusal(one, three).problem == "YAML and Markdown are mixed"
    assert refusal(tmp_path / "none.yaml").problem == "cannot be read: No such file or directory"


MODELS = (BatchFile, TaskEntry, HostSpec, RouteSpec, Limits)
KEYS = st.sampled_from(["box", *(f.alias or name for model in MODELS for name, f in model.model_fields.items())])
TEXTS = st.sampled_from(["box", "local", "~x", "~", "x:y", "-x", "${A}", "${B}", "/", "a.md", "\0", "x" * 5000, "1"])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.text(max_size=5)
ANY = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6))
PLACES = st.sampled_from([place for place, *_ in REFUSED if place != "tasks"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, ANY) | st.builds(changed, PLACES, ANY))
@example({"name": "x", "tasks": [{"id": "a", "instruction": "x", "route": {"host": {}}}]})
def test_any_mapping_is_a_batch_or_bad_input(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")  # JSON is YAML, and can hold what the dumper refuses
    try:
        assert load([path], {"A": "x"}).tasks
    except BadInput as refused:
        assert all([refused.where == str(path), refused.field, refused.mend])  # noqa: PT017  # either way is right
