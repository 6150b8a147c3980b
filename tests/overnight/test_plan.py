from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overnight.env import Absent, Binding, EnvPatch, Secret, Value
from overnight.failures import BadInput, FailureKind
from overnight.harnesses import HARNESSES
from overnight.lockfile import Header, ProviderLock
from overnight.plan import COMMIT_REQUEST, RunPlan
from overnight.session import Resume, Resumed
from overnight.spec import HostSpec, Limits
from tests.overnight.samples import BATCH_ID, BOX, LOCK, ROUTE, batch, plan, planner, task

ROUTES = [
    pytest.param({"host": "box", "harness": harness, "provider": provider, "model": model}, id=f"{provider}-{harness}")
    for provider, entry in LOCK.providers.items()
    for harness, wiring in entry.harnesses.items()
    if not entry.endpoints[wiring.endpoint].is_yours
    for model in itertools.islice(entry.models, 1)
]


def relocked(place: str, value: Any) -> ProviderLock:
    """The lock with one place changed."""
    raw: Any = json.loads(LOCK.model_dump_json(by_alias=True))
    *parents, last = place.split("/")
    here = raw
    for part in parents:
        here = here[part]
    here[last] = value
    return ProviderLock.model_validate(raw)


def refusal(lock: ProviderLock = LOCK, **changes: Any) -> BadInput:
    spec = batch(task(**changes))
    with pytest.raises(BadInput) as refused:
        planner(spec, lock).check()
    return refused.value


class TestEnvironment:
    def test_it_is_that_of_the_variables_and_the_same_for_every_attempt(self) -> None:
        first, other = plan(), dataclasses.replace(plan(), env=EnvPatch([("A", Value("1"))]))
        assert plan(id="whisper").environment == first.environment != other.environment
        assert "zai" in str(first.shown()["env"])
        assert len(first.environment) == 12

    def test_it_is_built_from_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The incident: the key's wrong variable was inherited. Whatever is set here, the plan is the same."""
        before = plan()
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-inherited")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://elsewhere.example")
        after = plan()
        assert after == before
        assert after.env["ANTHROPIC_API_KEY"] == Value("")
        assert after.env.secrets() == {"ANTHROPIC_AUTH_TOKEN": "zai"}
        assert "sk-inherited" not in json.dumps(after.shown())

    @pytest.mark.parametrize("route", ROUTES)
    def test_one_secret_and_no_placeholder_left(self, route: dict[str, str]) -> None:
        found = plan(route=route, limits=Limits(quiet_s=6000))
        assert list(found.env.secrets().items()) == [(found.key_variable, route["provider"])]
        assert found.header is HARNESSES[route["harness"]].HEADER_OF[found.key_variable]
        values = found.env.values().values()
        left = {each for value in (*values, *found.argv) for each in re.findall(r"{[\w -]*}", value)}
        assert left <= {"{home}", "{tmp}", "{run}", "{cwd}"}
        told = [*values, *found.argv, *dict(found.home_files).values()]
        assert any(found.base_url in value for value in told)

    def test_absent_variables_have_their_reasons(self) -> None:
        lock = LOCK.harnesses["claude-code"].absent
        assert lock
        assert plan().env.absent() == lock
        shown = plan().shown()["env"]
        assert {name: shown[name] for name in lock} == {name: f"absent: {why}" for name, why in lock.items()}

    def test_the_workspace_is_the_batch_author_s(self) -> None:
        env = plan().env.values()
        assert (env["GIT_AUTHOR_NAME"], env["GIT_COMMITTER_EMAIL"]) == ("Ann", "ann@x")
        assert env["PATH"] == "/opt/bin:/usr/local/bin:/usr/bin:/bin"
        assert env["HOME"] == "{home}"

    def test_a_folder_of_the_usual_path_stands_once(self) -> None:
        host = BOX.model_copy(update={"path": ("/usr/bin", "/opt")})
        spec = batch(hosts={"box": host})
        assert planner(spec).check()[0].env["PATH"] == Value("/usr/bin:/opt:/usr/local/bin:/bin")

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            ("harnesses/claude-code/env", {"PATH": "/evil"}),
            ("harnesses/claude-code/absent", {"ANTHROPIC_AUTH_TOKEN": "why"}),
            ("providers/zai/harnesses/claude-code/empty", {"ANTHROPIC_MODEL": "why"}),
        ],
    )
    def test_a_lock_that_binds_a_name_twice_is_refused(self, place: str, value: Any) -> None:
        error = refusal(relocked(place, value))
        assert (error.where, error.field) == ("providers.lock.json", "providers.zai.harnesses.claude-code")
        assert error.mend == "State each variable once"

    @pytest.mark.parametrize("keys", [(), ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY")])
    def test_a_lock_without_exactly_one_key_variable_is_refused(self, keys: tuple[str, ...]) -> None:
        value = {"ANTHROPIC_BASE_URL": "{base_url}", **dict.fromkeys(keys, "{key}")}
        error = refusal(relocked("providers/zai/harnesses/claude-code/set", value))
        assert error.where == "providers.lock.json"
        assert error.field == "providers.zai.harnesses.claude-code.set"


class TestShown:
    @pytest.mark.parametrize("route", ROUTES)
    def test_it_is_json_data(self, route: dict[str, str]) -> None:
        shown = plan(route=route, limits=Limits(quiet_s=6000)).shown()
        assert json.loads(json.dumps(shown, allow_nan=False)) == shown

    def test_it_says_where_the_key_goes_and_never_the_key(self) -> None:
        shown = plan().shown()
        assert shown["env"]["ANTHROPIC_AUTH_TOKEN"] == "<provider:zai>"
        assert shown["wire"] == {
            "url": LOCK.providers["zai"].endpoints["anthropic"].url,
            "key_in": "ANTHROPIC_AUTH_TOKEN",
            "sent_as": "Authorization: Bearer",
        }

    def test_flags_with_waits_are_filled_for_the_run_and_for_its_probe(self) -> None:
        route = {"host": "box", "harness": "codex", "provider": "openrouter", "model": "anthropic/claude-sonnet-5"}
        spec = batch(task(route=route))
        run = planner(spec).resolve(spec.tasks[0], 1, None)
        probe = planner(spec).probe(spec.tasks[0], "n1", "Say n1.")
        told = [next(a for a in each.argv if "model_providers" in a) for each in (run, probe)]
        assert [re.findall(r"stream_\w+=(\d+)", each) for each in told] == [["5", "60000"], ["0", "15000"]]
        assert all('base_url="https://openrouter.ai/api/v1"' in each for each in told)
        assert run.speaks == "openai-responses"

    def test_the_instruction_is_one_argument_that_is_no_flag(self) -> None:
        for harness in ("claude-code", "goose"):
            found = plan(instruction="--version", route=ROUTE.model_copy(update={"harness": harness}))
            (argument,) = (a for a in found.argv if "--version" in a)
            assert argument.endswith(f"--version{COMMIT_REQUEST}")
            assert found.argv[-2:] == ("--", argument) or argument.startswith("--text=")

    def test_asking_for_a_commit_can_be_switched_off(self) -> None:
        assert not any(COMMIT_REQUEST in argument for argument in plan(ask_for_commit=False).argv)


CHANGES: list[tuple[str, Any]] = [
    ("run_id", "other"),
    ("task_id", "other"),
    ("attempt", 2),
    ("route", ROUTE.model_copy(update={"model": "glm-5.1"})),
    ("argv", ("claude", "-p")),
    ("env", EnvPatch([("A", Value("1"))])),
    ("home_files", ((".claude.json", "{}"),)),
    ("repo", "/elsewhere"),
    ("base", "dev"),
    ("base_sha", "b" * 40),
    ("branch", "overnight/x/y"),
    ("limits", Limits(total_s=7201)),
    ("header", Header.X_API_KEY),
    ("key_variable", "OTHER"),
    ("base_url", "https://elsewhere.example"),
    ("longest_wait_s", 1.0),
    ("verify", "make test"),
    ("resume", Resume(Resumed(run_id="b1.shout.1", after=FailureKind.NO_COMMIT, why="it told no session id"))),
]
# decided at home after the run is over; a run that an earlier version started, which did not know it, is still ours
AT_HOME = {"approve", "speaks", "verify_on", "verify_twice", "guards", "deliver"}


class TestDigest:
    @pytest.mark.parametrize(("field", "value"), CHANGES)
    def test_it_changes_with_every_field(self, field: str, value: Any) -> None:
        found = plan()
        assert dataclasses.replace(found, **{field: value}).digest != found.digest

    def test_no_field_is_forgotten(self) -> None:
        # the batch id is in the run id, the command is what argv begins with, what is below is the base
        rest = {f.name for f in dataclasses.fields(RunPlan)} - {f for f, _ in CHANGES}
        assert rest - AT_HOME == {"batch_id", "command", "below"}

    def test_it_does_not_change_with_what_is_decided_at_home(self) -> None:
        assert dataclasses.replace(plan(), approve=True).digest == plan().digest

    @pytest.mark.parametrize("limit", list(Limits.model_fields))
    def test_it_changes_with_every_limit(self, limit: str) -> None:
        found = plan()
        more = {limit: (getattr(found.limits, limit) or 1000) + 1}
        assert dataclasses.replace(found, limits=found.limits.model_copy(update=more)).digest != found.digest

    def test_it_tells_bindings_of_one_name_apart(self) -> None:
        kinds: list[Binding] = [Value("zai"), Secret("zai"), Absent("zai"), Value("")]
        found = {dataclasses.replace(plan(), env=EnvPatch([("A", kind)])).digest for kind in kinds}
        assert len(found) == len(kinds)

    def test_it_is_the_same_in_another_process(self) -> None:
        code = "from tests.overnight.samples import plan; print(plan().digest)"
        root = Path(__file__).resolve().parents[2]
        for seed in ("1", "2"):
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=root, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
            )
            assert done.stdout.decode().strip() == plan().digest


class TestBudget:
    """120 s x (2 + 1) + 5 s = 365 s is what the lock lets Claude Code wait."""

    def test_a_wait_that_just_fits_is_taken(self) -> None:
        assert plan(limits=Limits(quiet_s=365.01)).longest_wait_s == 365

    def test_a_wait_that_just_does_not_fit_is_refused_with_its_numbers(self) -> None:
        error = refusal(limits=Limits(quiet_s=365))
        assert (error.where, error.field) == ("night.yaml", "tasks[0].limits.quiet_s")
        assert "120 s x (2 + 1) + 5 s = 365 s in silence, quiet_s is 365 s" in error.problem
        assert error.mend == "Raise quiet_s above 365"

    def test_quiet_must_be_below_total(self) -> None:
        error = refusal(limits=Limits(quiet_s=400, total_s=400))
        assert error.problem == "quiet_s 400 is not below total_s 400"
        assert plan(limits=Limits(quiet_s=400, total_s=400.5))

    def test_without_a_quiet_limit_nothing_can_be_mistaken(self) -> None:
        assert plan(limits=Limits(quiet_s=None, total_s=30)).limits.quiet_s is None

    def test_a_harness_that_cannot_be_told_how_long_to_wait_is_not_held_to_it(self) -> None:
        goose = ROUTE.model_copy(update={"harness": "goose"})
        assert plan(route=goose, limits=Limits(quiet_s=1)).longest_wait_s is None

    def test_the_wiring_s_own_timing_goes_first(self) -> None:
        own = {"request_timeout_s": 10, "retries": 0, "backoff_s": 1}
        lock = relocked("providers/zai/harnesses/claude-code/timing", own)
        spec = batch(task(limits=Limits(quiet_s=12)))
        (found,) = planner(spec, lock).check()
        assert (found.longest_wait_s, found.env["API_TIMEOUT_MS"]) == (11, Value("10000"))


class TestProbe:
    """The probe goes the run's own way; only what the lock's probe mode says may differ."""

    @pytest.mark.parametrize("route", ROUTES)
    def test_it_differs_in_nothing_else(self, route: dict[str, str]) -> None:
        spec = batch(task(route=route, limits=Limits(quiet_s=6000), verify="make test"))
        planned, mode = planner(spec), LOCK.harnesses[route["harness"]].probe
        run, probe = planned.resolve(spec.tasks[0], 1, None), planned.probe(spec.tasks[0], "n1", "Say n1.")
        same = ("batch_id", "route", "command", "header", "key_variable", "base_url", "speaks")
        assert {n: getattr(probe, n) for n in same} == {n: getattr(run, n) for n in same}
        assert probe.env.secrets() == run.env.secrets()
        assert probe.env.absent() == run.env.absent()
        changed = {n for n, b in probe.env if n not in run.env or b != run.env[n]}
        timed = {n for n, v in LOCK.harnesses[route["harness"]].env.items() if "{" in v}
        assert changed <= timed | mode.env.keys()
        assert {n for n, _ in run.env} <= {n for n, _ in probe.env}
        assert probe.limits.total_s == mode.total_s
        assert probe.longest_wait_s == mode.timing.longest_s
        assert set(mode.flags) <= set(probe.argv)
        flags = LOCK.harnesses[route["harness"]].flags
        assert {flag for flag in flags if "{" not in flag} <= set(probe.argv)
        assert len(set(probe.argv) - set(run.argv)) <= 1 + len(mode.flags) + sum("{" in flag for flag in flags)

    def test_it_is_no_attempt_of_the_task(self) -> None:
        spec = batch()
        probe = planner(spec).probe(spec.tasks[0], "n1", "Say n1.")
        assert probe.run_id == f"{BATCH_ID}.probe-n1.1"
        assert not any("Add --shout" in argument for argument in probe.argv)
        assert not any(COMMIT_REQUEST in argument for argument in probe.argv)


class TestNames:
    @pytest.mark.parametrize("name", ["a", "0", "a.b", "a-1_2.c", "lock", "lock.a", "a.lock.b", "x" * 63])
    def test_every_allowed_name_makes_valid_git_refs(self, name: str) -> None:
        spec = batch(task(id=name), name=name)
        found = planner(spec, batch_id=f"{name}-20261122-210000-ab12").check()[0]
        for ref in (f"heads/{found.branch}", f"overnight/{found.run_id}/wip", f"overnight/base/{found.run_id}"):
            subprocess.run(["git", "check-ref-format", f"refs/{ref}"], check=True)
        assert len(f"{found.run_id}.verify") < 255

    def test_run_ids_of_different_tasks_never_meet(self) -> None:
        ids = ["a", "a.1", "a.1.1", "1", "a-1", "a.verify", "a_1"]
        spec = batch(*(task(id=name) for name in ids))
        made = [planner(spec).resolve(t, attempt, None).run_id for t in spec.tasks for attempt in (1, 2, 10, 11)]
        assert len(set(made)) == len(made)

    @pytest.mark.parametrize(
        ("route", "field", "mend"),
        [
            ({"harness": "claude"}, "tasks[0].route.harness", "Did you mean claude-code"),
            ({"provider": "zia"}, "tasks[0].route.provider", "Did you mean zai"),
            ({"model": "GLM-5.2"}, "tasks[0].route.model", "Did you mean glm-5.2"),
        ],
    )
    def test_unknown_names_are_refused_with_near_ones(self, route: dict[str, str], field: str, mend: str) -> None:
        error = refusal(route=ROUTE.model_copy(update=route))
        assert (error.where, error.field) == ("night.yaml", field)
        assert mend in error.mend


def test_resolving_is_pure() -> None:
    spec, host = batch(), HostSpec.model_validate(BOX.model_dump())
    assert planner(spec).check() == planner(spec).check()
    assert spec.hosts == {"box": host}
    assert plan().located("/opt/bin/claude").argv[0] == "/opt/bin/claude"
    assert plan().based("b" * 40).base_sha == "b" * 40
