"""How a run ended: the host's ending, the harness's words and git, read together in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping

from overnight.collected import Collected
from overnight.events import Act, Ending, Exited, Killed, Lost
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.transcript import Transcript

_SHOWN_BYTES = 400
_K = FailureKind


def process_failure(
    transcript: Transcript, said: Failure | None, stopped: Failure | None, names: Mapping[str, str]
) -> Failure | None:
    """Why the process did not end well, before anybody looks at commits; None when nothing speaks against it.

    Order: why we stopped it, unless it ended well by itself before we could;
    then what the harness proved (its events carry provider codes and
    statuses), then how the host saw it end. A time limit that cut a run in the
    middle of provider retries is the provider's fault, so the harness's words
    come before the limit. A request to end the run comes before them, except
    where they shut the route: that is true for every other task, too.

    Args:
        transcript: The finished run; its `ending` must be set.
        said: `diagnose` of the harness on this transcript.
        stopped: The failure for which the controller ended the run, if it did.
        names: Fill the remedy.
    """
    ending = transcript.ending
    if stopped is not None and not _ended_well(ending):
        return stopped
    if said is not None and said.shuts_route:
        return said
    if isinstance(ending, Killed) and ending.by == "request":
        seen = f"ended on request after {ending.seconds:.0f} s"
        return fail(_K.CANCELLED, Evidence(source="host", seen=seen, at_s=ending.seconds), names=names)
    if said is not None and said.kind is not _K.UNKNOWN:
        return said
    match ending:
        case Lost(why):
            return fail(_K.LOST, Evidence(source="host", seen=why), names=names)
        case Killed(by="orphan", seconds=seconds):
            seen = "its supervisor died; the run was ended, since nobody would have enforced its limits"
            return fail(_K.LOST, Evidence(source="host", seen=seen, at_s=seconds), names=names)
        case Killed(by="total_s", seconds=seconds):
            evidence = Evidence(source="host", seen=f"ended by the host at its limit of {seconds:.0f} s", at_s=seconds)
            return fail(_K.TIME_LIMIT, evidence, _last_act(transcript), names=names)
        case Killed(by="max_log_bytes", seconds=seconds):
            written = transcript.out_bytes + transcript.err_bytes
            evidence = Evidence(source="host", seen=f"{written} bytes written", at_s=seconds)
            return fail(_K.LOG_LIMIT, evidence, *head_and_tail(transcript), names=names)
        case Exited(code=code, signal=signal, seconds=seconds) if code != 0:
            how = f"signal {signal}" if signal is not None else f"exit code {code}"
            evidence = Evidence(source="exit", seen=how, at_s=seconds)
            words = said.evidence if said is not None else head_and_tail(transcript)
            return fail(_K.UNKNOWN, evidence, *words, names=names)
        case _:
            return said


def _ended_well(ending: Ending | None) -> bool:
    return isinstance(ending, Exited) and ending.code == 0


def conclude(
    process: Failure | None, collected: Collected, transcript: Transcript, names: Mapping[str, str]
) -> Failure | None:
    """The verdict once git has been counted. None is success: the process ended well and there are commits."""
    if process is not None:
        return process
    if collected.commits:
        return None
    counted = Evidence(source="git", seen=f"0 commits since {collected.base_sha[:12]}")
    left = collected.leftovers
    found = (
        [Evidence(source="git", seen=f"{left.count} changed files not committed, saved on {left.ref}")] if left else []
    )
    denied = transcript.last(Act.DENIED)
    if denied is not None:
        seen = f"permission denied for {denied.event.tool or 'a tool'}"
        return fail(
            _K.PERMISSION_DENIED, Evidence(source="event", seen=seen, at_s=denied.at_s), counted, *found, names=names
        )
    return fail(_K.NO_COMMIT, counted, *found, _last_act(transcript), names=names)


def claims(transcript: Transcript, commits: int) -> str | None:
    """What the agent reported of itself that git does not bear out, in our words."""
    result = transcript.last(Act.RESULT)
    if commits == 0 and result is not None and result.event.ok:
        return "it reported success; there is no commit"
    return None


def head_and_tail(transcript: Transcript) -> tuple[Evidence, ...]:
    """The first and last bytes of what was printed, for a cause nobody could name."""
    head = _text(transcript.out_head[:_SHOWN_BYTES])
    tail = _text(transcript.out_tail[-_SHOWN_BYTES:])
    errors = _text(transcript.err_tail[-_SHOWN_BYTES:])
    shown = [Evidence(source="host", seen=f"stdout, {transcript.out_bytes} bytes, begins: {head or '(empty)'}")]
    if transcript.out_bytes > _SHOWN_BYTES:
        shown.append(Evidence(source="host", seen=f"stdout ends: {tail}"))
    shown.append(Evidence(source="host", seen=f"stderr, {transcript.err_bytes} bytes, ends: {errors or '(empty)'}"))
    return tuple(shown)


def _last_act(transcript: Transcript) -> Evidence:
    if not transcript.said:
        return Evidence(source="event", seen="the harness reported no event")
    last = transcript.said[-1]
    detail = f" {last.event.tool}" if last.event.tool else ""
    return Evidence(source="event", seen=f"last event: {last.event.act}{detail}", at_s=last.at_s)


def _text(data: bytes | bytearray) -> str:
    return " ".join(data.decode("utf-8", "replace").split())
