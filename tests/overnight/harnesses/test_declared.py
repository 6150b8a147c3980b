from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from overnight.events import Act, Exited
from overnight.failures import FailureKind
from overnight.harnesses import HARNESSES
from overnight.harnesses.declared import DECLARED, FOLDER, Declaration, read
from overnight.harnesses.protocol import Launch
from overnight.transcript import Transcript
from tests.overnight.harnesses.golden import RULES, case, read_all

REFUSED = b"litellm.AuthenticationError: AnthropicException - no\n"
ANSWERED = b"Tokens: 1.2k sent, 7 received.\n"
AIDER = HARNESSES["aider"]

OURS = """
name = "mine"
command = "mine"
argv = ["run", "{flags}", "--", "{prompt}"]
output = "json"
verdict = "event"
usage = '^usage:'
headers = {MY_KEY = "bearer"}
version = {argv = ["-v"], pattern = '(.+)'}

[[lines]]
act = "error"
stream = "err"
pattern = '^failed: (?P<text>.*)'
status = 'HTTP (\\d+)'

[[lines]]
act = "result"
when = {"end.ok" = true}
read = {text = "end.said", tokens = "end.used"}
ok = true
"""


def kind(out: bytes, ending: Exited | None) -> FailureKind | None:
    transcript = Transcript(ending=ending)
    transcript.add_events(0.0, read_all("aider", out))
    failure = AIDER.diagnose(transcript, (), {})
    return failure.kind if failure else None


@pytest.mark.parametrize(
    ("out", "ending", "expected"),
    [
        (REFUSED, Exited(0, None, 1.0), FailureKind.AUTH_REJECTED),
        (REFUSED, None, None),  # the model may write such a line: not before the end
        (REFUSED + ANSWERED, Exited(0, None, 1.0), None),  # and it did, or a later try was answered
        (ANSWERED + REFUSED, Exited(0, None, 1.0), FailureKind.AUTH_REJECTED),
        (b"  " + REFUSED + ANSWERED, Exited(0, None, 1.0), None),
        (b"litellm says 401\n", Exited(0, None, 1.0), FailureKind.HARNESS_CRASHED),
        (ANSWERED, Exited(1, None, 1.0), FailureKind.HARNESS_CRASHED),
    ],
)
def test_what_a_text_harness_proves(out: bytes, ending: Exited | None, expected: FailureKind | None) -> None:
    assert kind(out, ending) is expected


def test_a_line_of_plain_text_is_a_weaker_sighting_than_an_event() -> None:
    failure = AIDER.diagnose(case("aider", "401").transcript(), RULES, {})
    assert failure is not None
    assert [e.source for e in failure.evidence if e.at_s is not None][-1] == "stderr"


def test_what_was_said_is_the_lines_that_no_rule_fits() -> None:
    spoke = [e for e in read_all("aider", case("aider", "ok-text").out) if e.act is Act.SPOKE]
    assert [e.text.splitlines()[-1] for e in spoke] == ["kestrel-7"]


def test_a_good_run_of_gemini() -> None:
    events = read_all("gemini-cli", case("gemini-cli", "ok-tooluse").out)
    acts = [e.act for e in events if e.act is not Act.OTHER]
    assert acts == [Act.INIT, Act.TOOL_STARTED, Act.TOOL_ENDED, Act.SPOKE, Act.RESULT]
    assert (events[0].model, events[-1].tokens) == ("rehearsal-large", 36)


def test_a_rule_reads_its_own_stream_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(OURS)
    reader = read(tmp_path / "mine.toml").reader()
    assert [e.act for e in reader.feed("out", b"failed: HTTP 401\n")] == [Act.OTHER]
    (error,) = reader.feed("err", b"failed: HTTP 401\n")
    assert (error.act, error.text, error.status) == (Act.ERROR, "HTTP 401", 401)
    (result,) = reader.feed("out", b'{"end": {"ok": true, "said": "x", "used": 3}}\n')
    assert (result.text, result.tokens, result.ok) == ("x", 3, True)
    assert [e.act for e in reader.feed("out", b'{"end": {"ok": false}}\n')] == [Act.OTHER]


def test_flags_stand_where_the_file_says() -> None:
    found = AIDER.argv(Launch("/opt/aider", "/clear", "m-1", ("--one", "--two")))
    assert found == ("/opt/aider", "--model=anthropic/m-1", "--one", "--two", "--message=Instruction: /clear")


def test_every_file_is_a_harness_under_its_own_name() -> None:
    assert [each.NAME for each in DECLARED] == [path.stem for path in sorted(FOLDER.glob("*.toml"))]


@pytest.mark.parametrize("wrong", ['verdict = "maybe"', 'usage = "("', 'colour = "red"'])
def test_what_a_file_may_not_say_is_named(wrong: str) -> None:
    name = wrong.partition(" ")[0]
    head = "".join(f"{line}\n" for line in OURS.splitlines() if not line.startswith(f"{name} ="))
    with pytest.raises(ValidationError, match=name):
        Declaration.model_validate(tomllib.loads(f"{wrong}\n{head}"))
