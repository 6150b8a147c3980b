"""What every harness must keep to. Run for each entry of `HARNESSES`."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overnight.events import Act, Exited
from overnight.failures import FailureKind
from overnight.harnesses import HARNESSES
from overnight.harnesses.declared import Declared
from overnight.harnesses.protocol import Harness, Launch
from overnight.lockfile import Header
from overnight.outcome import FULL_BYTES
from overnight.transcript import Transcript

NAMES = {"provider": "zhipu", "harness": "any", "host": "box", "model": "m"}
HOSTILE = ("---\ntitle: x\n---\nwork", "-p", "--version", "--", "", " ", "/clear", "a\nb", "'\"$(id)`id`\\", "身份验证")

KINDS = (
    *("system", "assistant", "user", "result", "message", "complete", "error", "retry", "init"),
    *("session", "message_end", "tool_execution_end", "auto_retry_start", "auto_retry_end", "agent_end"),
    *("model.call_failure", "assistant.message", "tool.execution_start", "tool.execution_complete", "session.error"),
)

_NAMES = st.sampled_from(
    [
        "type",
        "subtype",
        "message",
        "content",
        "text",
        "error",
        "status",
        "model",
        "metadata",
        "inference",
        "id",
        "name",
        "ok",
        "is_error",
        "errors",
        "usage",
        "modelUsage",
        "retry_delay_ms",
        "api_error_status",
        "tool_use_result",
        "gitOperation",
        "commit",
        "toolCall",
        "toolResult",
        "value",
        "data",
        "statusCode",
        "errorMessage",
        "toolCallId",
        "shellExecution",
        "stopReason",
        "exitCode",
    ]
)

SESSION = "01a2288c-7e77-72b1-a296-613672081344"
RESUMING: tuple[dict[str, Any], ...] = ({}, {"keeps": True}, {"keeps": True, "session": SESSION})


def _launch(instruction: str = "do it", flags: tuple[str, ...] = ("--one=1",), max_turns: int | None = None) -> Launch:
    return Launch("/opt/agent", instruction, "glm-5.1", flags, max_turns=max_turns)


class HarnessContract:
    """Subclass it with `harness` parametrized."""

    def test_is_in_the_table_under_its_own_name(self, harness: Harness) -> None:
        assert HARNESSES[harness.NAME] is harness
        assert "/" not in harness.COMMAND

    def test_says_which_header_each_key_variable_gives(self, harness: Harness) -> None:
        assert harness.HEADER_OF
        assert set(harness.HEADER_OF.values()) <= set(Header)

    @pytest.mark.parametrize("instruction", HOSTILE)
    def test_the_instruction_is_one_argument_and_the_last(self, harness: Harness, instruction: str) -> None:
        argv = harness.argv(_launch(instruction))
        assert argv[-1].endswith(instruction)
        assert argv[:-1] == harness.argv(_launch("else"))[:-1], "no instruction changes the other arguments"
        assert argv[-2] in ("--", "--print") or argv[-1].startswith(("--text=", "--message=", "--prompt="))

    def test_the_flags_of_the_lock_come_whole_and_in_order(self, harness: Harness) -> None:
        argv = harness.argv(_launch(flags=("--one=1", "--two", "b")))
        at = argv.index("--one=1")
        assert argv[at : at + 3] == ("--one=1", "--two", "b")

    def test_starts_the_executable_it_was_given(self, harness: Harness) -> None:
        for argv in (harness.argv(_launch()), harness.probe_argv(_launch())):
            assert argv[0] == "/opt/agent"
            assert any("glm-5.1" in argument for argument in argv)
        assert harness.version_argv("/opt/agent")[0] == "/opt/agent"

    def test_a_turn_cap_reaches_the_command_line(self, harness: Harness) -> None:
        assert "--max-turns=7" in harness.argv(_launch(max_turns=7)) or "max_turns" not in harness.CAPS
        assert not any("max-turns" in argument for argument in harness.argv(_launch()))

    def test_it_goes_on_with_a_session_or_says_why_not(self, harness: Harness) -> None:
        kept = harness.SESSIONS
        if isinstance(kept, str):
            assert kept
            return
        plain, keeps, on = (harness.argv(dataclasses.replace(_launch(), **more)) for more in RESUMING)
        assert not any(SESSION in part for part in (*plain, *keeps))
        assert sum(SESSION in part for part in on) == 1, "the id is an argument, or a part of one, of its own"
        assert on[-1] == plain[-1] == keeps[-1]
        assert set(plain) - set(on) <= {"--no-session", "--ephemeral"}
        assert all("{id}" in each and not each.startswith(("/", "~")) for each in kept.files)
        assert ".." not in {part for each in kept.files for part in Path(each).parts}

    def test_a_version_is_read_or_refused_never_guessed(self, harness: Harness) -> None:
        for output in ("", "command not found", "Error: 12", "{}", "v"):
            assert harness.read_version(output) is None

    def test_home_files_stay_below_home_and_hold_no_secret(self, harness: Harness) -> None:
        for name, text in harness.home_files(_launch()).items():
            assert not name.startswith("/")
            assert ".." not in Path(name).parts
            assert "sk-" not in text

    @settings(max_examples=60, deadline=None)
    @given(data=st.binary(max_size=400), cut=st.integers(1, 50))
    def test_no_bytes_raise_and_no_cut_matters(self, harness: Harness, data: bytes, cut: int) -> None:
        whole, pieces = harness.reader(), harness.reader()
        expected = whole.feed("out", data + b"\n")
        found = [e for i in range(0, len(data) + 1, cut) for e in pieces.feed("out", (data + b"\n")[i : i + cut])]
        assert found == expected

    @settings(max_examples=60, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=6),
            max_leaves=20,
        )
    )
    def test_no_shape_of_json_raises(self, harness: Harness, value: object) -> None:
        reader = harness.reader()
        transcript = Transcript()
        for kind in KINDS:
            fields = {"type": kind, **(value if isinstance(value, dict) else {"message": value})}
            transcript.add_events(0.0, reader.feed("out", json.dumps({**fields, "type": kind}).encode() + b"\n"))
        harness.diagnose(transcript, (), NAMES)

    def test_standard_error_is_no_event(self, harness: Harness) -> None:
        assert harness.reader().feed("err", b'{"type":"result","is_error":true}\nError: x\n') == []

    def test_a_line_that_is_no_json_is_a_sign_of_life(self, harness: Harness) -> None:
        assert [e.act for e in harness.reader().feed("out", b"hello\n")] == [Act.OTHER]

    def test_nothing_said_and_nothing_ended_is_no_fault(self, harness: Harness) -> None:
        assert harness.diagnose(Transcript(), (), NAMES) is None

    def test_a_command_that_is_not_there_is_missing(self, harness: Harness) -> None:
        ended = Exited(None, None, 0.0, exec_error="exec: No such file or directory: agent")
        failure = harness.diagnose(Transcript(ending=ended), (), NAMES)
        assert failure is not None
        assert failure.kind is FailureKind.HARNESS_MISSING

    @pytest.mark.parametrize(
        ("ending", "seen", "kind"),
        [
            (Exited(None, 9, 1.0), "signal 9 (SIGKILL)", FailureKind.HARNESS_CRASHED),
            (Exited(137, None, 1.0), "SIGKILL", FailureKind.HARNESS_CRASHED),
            (Exited(0, None, 1.0), "before a result", FailureKind.HARNESS_CRASHED),
            (Exited(3, None, 1.0, disk_free_bytes=FULL_BYTES), "exit code 3", FailureKind.HARNESS_CRASHED),
            (Exited(None, 11, 1.0, oom_kills=1, oom_kills_own=1), "SIGSEGV", FailureKind.HARNESS_CRASHED),
            (Exited(None, 9, 1.0, oom_kills=1), "SIGKILL", FailureKind.HARNESS_CRASHED),
            (Exited(None, 9, 1.0, oom_kills=1, oom_kills_own=1), "want of memory", FailureKind.OUT_OF_MEMORY),
            (Exited(137, None, 1.0, oom_kills=2, oom_kills_own=1), "2 process(es)", FailureKind.OUT_OF_MEMORY),
            (Exited(1, None, 1.0, disk_free_bytes=0), "0 bytes were free", FailureKind.DISK_FULL),
        ],
    )
    def test_an_end_without_a_verdict_is_named_by_how_it_ended(
        self, harness: Harness, ending: Exited, seen: str, kind: FailureKind
    ) -> None:
        failure = harness.diagnose(Transcript(ending=ending), (), NAMES)
        assert failure is not None
        assert failure.kind is kind
        assert seen in str(failure.evidence[0])

    def test_is_a_module_without_state(self, harness: Harness) -> None:
        if isinstance(harness, Declared):
            return
        assert isinstance(harness, ModuleType)
        tree = ast.parse(Path(str(harness.__file__)).read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]

    def test_two_readers_share_nothing(self, harness: Harness) -> None:
        one, other = harness.reader(), harness.reader()
        one.feed("out", b'{"type": ')
        assert [e.act for e in other.feed("out", b"\n{}\n")] == [Act.OTHER]
