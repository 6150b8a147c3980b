"""What is written is read again by whoever it was written for."""

from __future__ import annotations

import io
import json
import re
import subprocess
from pathlib import Path

import dotenv
import pytest

from overnight import lockfile
from overnight.env import Absent, EnvPatch, Secret, Value
from overnight.envtext import Format, Wanted, unsaid, wanted, written
from overnight.failures import BadInput
from overnight.lockfile import ProviderLock
from tests.overnight.overlays import settled

LOCK = lockfile.load()
KEY = "fake-key $HOME 'SECRET'"
PAIRS = [(provider, harness) for provider, entry in LOCK.providers.items() for harness in entry.harnesses]
PAIRS += [(provider, harness) for provider, entry in LOCK.environment_only.items() for harness in entry.harnesses]
each_pair = pytest.mark.parametrize(("provider", "harness"), PAIRS)
VALUES = [
    "",
    "plain",
    "two words",
    "it's",
    'say "hi"',
    "back\\slash",
    "it's back\\slash",
    "100%",
    "%h/x",
    "$HOME `id` $(id)",
    "line\nbreak",
    "#hash",
    "a #b",
    " edges ",
    "glm-5.2[1m]",
    "余额",
    "a=b;c&d|e>f",
    "tab\there",
]


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> ProviderLock:
    return settled(tmp_path_factory.mktemp("overlay")).lock


def one(value: str) -> Wanted:
    return Wanted("zai", "claude-code", "glm-5.2", EnvPatch([("A_VALUE", Value(value))]), "x-api-key")


def shell(text: str, environ: dict[str, str], program: str = "bash") -> dict[str, str]:
    """What a shell has in its environment after reading the text."""
    script = f"set -eu\n{text}\nexec env -0\n"
    done = subprocess.run(
        [program, "-c", script], env={"PATH": "/usr/bin:/bin", **environ}, capture_output=True, check=True
    )
    lines = done.stdout.decode().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def unit(text: str) -> tuple[dict[str, str], list[str], list[str]]:
    """Environment=, EnvironmentFile= and UnsetEnvironment= by the rules of systemd.exec(5) and systemd.syntax(7)."""
    bound: dict[str, str] = {}
    files: list[str] = []
    gone: list[str] = []
    for line in text.splitlines():
        if not line or line[0] in "#;[":
            continue
        name, _, value = line.partition("=")
        if name == "Environment":
            quoted = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', value)
            assert quoted, f"not one quoted word: {value}"
            word = re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), quoted[1])
            assert not re.search(r"(?<!%)(?:%%)*%(?!%)", word), f"a specifier: {word}"
            key, _, plain = word.replace("%%", "%").partition("=")
            bound[key] = plain
        elif name == "EnvironmentFile":
            files.append(value)
        else:
            assert name == "UnsetEnvironment"
            gone.append(value)
    return bound, files, gone


class TestEveryPair:
    @each_pair
    @pytest.mark.parametrize("program", ["bash", "sh"])
    def test_a_shell_ends_up_with_what_a_run_would_have(
        self, lock: ProviderLock, provider: str, harness: str, program: str
    ) -> None:
        what = wanted(lock, provider, harness)
        inherited = dict.fromkeys([*what.env.absent(), *what.env.values(), *what.env.secrets()], "inherited")
        key = f"OVERNIGHT_KEY_{provider.upper().replace('-', '_')}"
        found = shell(written(what, Format.SH), {**inherited, **dict.fromkeys(what.yours, "mine"), key: KEY}, program)
        assert {name: found[name] for name in what.env.values()} == what.env.values()
        assert {found[name] for name in what.env.secrets()} <= {KEY}
        assert not set(what.env.absent()) & set(found)
        assert {found[name] for name in what.yours} <= {"mine"}

    @each_pair
    def test_a_shell_without_the_key_stops_and_names_it(self, lock: ProviderLock, provider: str, harness: str) -> None:
        what = wanted(lock, provider, harness)
        if not what.env.secrets():
            return
        script = written(what, Format.SH) + "\necho went on\n"
        done = subprocess.run(["bash", "-c", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
        assert done.returncode != 0
        assert f"the key of {provider} goes there" in done.stderr
        assert "went on" not in done.stdout

    @each_pair
    def test_an_env_file_reads_back(
        self, lock: ProviderLock, provider: str, harness: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        what = wanted(lock, provider, harness)
        monkeypatch.setenv(f"OVERNIGHT_KEY_{provider.upper().replace('-', '_')}", KEY)
        text = written(what, Format.DOTENV)
        assert dotenv.dotenv_values(stream=io.StringIO(text)) == {
            **what.env.values(),
            **dict.fromkeys(what.env.secrets(), KEY),
        }
        for name, why in what.env.absent().items():
            assert f"# must not be set at all: {name}, {why}" in text

    @each_pair
    def test_a_unit_reads_back(self, lock: ProviderLock, provider: str, harness: str) -> None:
        what = wanted(lock, provider, harness)
        bound, files, gone = unit(written(what, Format.SYSTEMD))
        assert bound == what.env.values()
        assert files == [f"%h/.config/overnight/{provider}.env" for _ in what.env.secrets()]
        assert gone == list(what.env.absent())

    @each_pair
    def test_json_says_everything(self, lock: ProviderLock, provider: str, harness: str) -> None:
        what = wanted(lock, provider, harness)
        data = json.loads(written(what, Format.JSON))
        assert (data["set"], data["absent"], data["yours"]) == (what.env.values(), what.env.absent(), dict(what.yours))
        assert {name: each["provider"] for name, each in data["secret"].items()} == what.env.secrets()

    @each_pair
    def test_a_settings_file_cancels_what_it_cannot_unset(
        self, lock: ProviderLock, provider: str, harness: str
    ) -> None:
        what = wanted(lock, provider, harness)
        if harness != "claude-code":
            with pytest.raises(BadInput, match=r"reads no settings\.json"):
                written(what, Format.SETTINGS)
            return
        env = json.loads(written(what, Format.SETTINGS))["env"]
        assert env == {**what.env.values(), **dict.fromkeys(what.env.absent(), "")}
        said = " ".join(unsaid(what, Format.SETTINGS))
        assert all(f"{name} is not in it" in said for name in [*what.env.secrets(), *what.yours])


def test_an_address_that_is_in_no_variable_is_told_as_the_flags_that_say_it() -> None:
    what = wanted(LOCK, "openrouter", "codex")
    assert "https://openrouter.ai" not in written(what, Format.SH)
    [line] = unsaid(what, Format.SH)
    assert 'base_url="https://openrouter.ai/api/v1"' in line
    assert not any(each in line for each in ("{base_url}", "{retries}", "{request_timeout_ms}"))


class TestEveryValue:
    @pytest.mark.parametrize("value", VALUES)
    @pytest.mark.parametrize("program", ["bash", "sh"])
    def test_in_a_shell(self, value: str, program: str) -> None:
        assert shell(written(one(value), Format.SH), {}, program)["A_VALUE"] == value

    @pytest.mark.parametrize("value", VALUES)
    def test_in_an_env_file(self, value: str) -> None:
        assert dotenv.dotenv_values(stream=io.StringIO(written(one(value), Format.DOTENV))) == {"A_VALUE": value}

    @pytest.mark.parametrize("value", ["a ${HOME} b", "it's $5"])
    def test_what_an_env_file_cannot_say_is_refused(self, value: str) -> None:
        with pytest.raises(BadInput, match="some readers would fill in"):
            written(one(value), Format.DOTENV)

    @pytest.mark.parametrize("value", VALUES)
    def test_in_a_unit(self, value: str) -> None:
        assert unit(written(one(value), Format.SYSTEMD))[0] == {"A_VALUE": value}


@pytest.mark.parametrize("form", list(Format))
def test_a_reason_of_many_lines_cannot_become_a_line_of_its_own(form: Format) -> None:
    patch = EnvPatch([("A", Absent("why\nexport EVIL=1\nEnvironment=EVIL=1")), ("K", Secret("zai"))])
    yours = {"Y": 'x\n"; export EVIL=1 $(id) `id` }'}
    text = written(Wanted("zai", "claude-code", "m", patch, "x", yours), form)
    if form in (Format.JSON, Format.SETTINGS):
        assert "EVIL" not in json.loads(text).get("env", {})
        return
    assert not re.search(r"^(export )?(Environment=)?EVIL", text, re.MULTILINE)
    if form is Format.SH:
        assert "EVIL" not in shell(text, {"OVERNIGHT_KEY_ZAI": KEY, "Y": "mine"})


class TestWhatIsWanted:
    def test_the_first_model_unless_another_is_asked_for(self) -> None:
        assert wanted(LOCK, "zai", "claude-code").model == next(iter(LOCK.providers["zai"].models))
        env = wanted(LOCK, "zai", "goose", "glm-4.7").env.values()
        assert env["GOOSE_MODEL"] == "glm-4.7"

    def test_the_header_is_named(self) -> None:
        assert wanted(LOCK, "zai", "claude-code").sent_as == "Authorization: Bearer"
        assert wanted(LOCK, "zai", "goose").sent_as == "x-api-key"
        assert wanted(LOCK, "foundry", "claude-code").sent_as.startswith("x-api-key")

    def test_a_server_of_ones_own_is_where_one_says(self) -> None:
        what = wanted(LOCK, "ollama", "claude-code", url="http://10.0.0.5:11434")
        assert what.env.values()["ANTHROPIC_BASE_URL"] == "http://10.0.0.5:11434"

    @pytest.mark.parametrize(
        ("ask", "problem", "mend"),
        [
            (("zia", "claude-code"), "unknown provider 'zia'", "zai"),
            (("zai", "claude"), "unknown harness for provider zai", "claude-code"),
            (("zai", "claude-code", "GLM-5.2"), "unknown model of zai", "glm-5.2"),
            (("ollama", "claude-code"), "the address of ollama is yours", "overnight.lock.json"),
            (("vllm", "claude-code", None, "http://10.0.0.5:8000"), "knows no model of vllm", "--model"),
            (("ollama", "claude-code", None, "10.0.0.5:11434"), "is no base URL", "http://"),
            (("bedrock", "goose"), "unknown harness for bedrock", "claude-code"),
            (("bedrock", "claude-code", "claude-opus-5"), "unknown model of bedrock", "claude-opus"),
        ],
    )
    def test_what_the_lock_cannot_say_is_refused(self, ask: tuple[str, ...], problem: str, mend: str) -> None:
        with pytest.raises(BadInput) as caught:
            wanted(LOCK, *ask)
        assert problem in caught.value.problem
        assert mend in caught.value.mend

    def test_no_key_can_be_in_it(self, tmp_path: Path) -> None:
        what = wanted(LOCK, "zai", "claude-code")
        assert not any("key" in value.lower() for value in what.env.values().values())
