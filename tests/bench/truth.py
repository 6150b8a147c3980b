"""How soon a wrong key is named: from starting the batch to the verdict, with the real Claude Code.

    python -m tests.bench.truth [--rounds 3] [--patient 1]

The provider is emulated and takes the key as `Authorization: Bearer` only; the
lock sends it as `x-api-key`, as on the day of the story. Peers: the same agent
in text mode with its own defaults, asked until it ends by itself, and the
story's probe, the same for 30 s. The patient one waits for some three minutes
beside the others; it needs no processor. `--patient 0` leaves it out.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from overnight.rehearsal.agents import obtain
from tests.bench.rig import Part, Row, command_of, folder, parser, quiet, tell
from tests.conftest import AGENTS, INSTALLER
from tests.flows.world import KEYS, World, world

MODEL = "rehearsal-large"
PROBE_S, PATIENCE_S = 30, 400
_SHUT, _PROBING = re.compile(r"SHUT after"), re.compile(r"preflight: probing")


@dataclass(frozen=True)
class Verdict:
    """Seconds from the start of the command, and from the first question, to the line that names the cause."""

    whole_s: float
    asking_s: float


def ours(here: World) -> Verdict:
    route = {"host": "box", "harness": "claude-code", "provider": "rehearsal-incident", "model": MODEL}
    batch = here.batch("truth", [{"id": "t", "instruction": "Add a greeting", "route": route}])
    argv = [sys.executable, "-m", "flows.batch", batch, "--state", here.state, "--lock", here.lock]
    began, asked, named = time.monotonic(), 0.0, 0.0
    with subprocess.Popen(
        [*map(str, argv)], env=here.env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as p:
        assert p.stderr is not None
        said = []
        for line in p.stderr:
            said.append(line)
            asked = asked or (time.monotonic() if _PROBING.search(line) else 0.0)
            if not named and _SHUT.search(line):
                named = time.monotonic()
                if "ANTHROPIC_AUTH_TOKEN" not in line and "auth" not in line and "x-api-key" not in line:
                    raise SystemExit(f"shut for another cause: {line}")
    if not named or not asked:
        raise SystemExit("".join(said))
    return Verdict(named - began, named - asked)


def by_hand(here: World, *before: str) -> subprocess.Popen[str]:
    """The agent as a script would ask it; `before` goes before the command."""
    env = {
        "PATH": f"{AGENTS / 'bin'}:{os.environ['PATH']}",
        "HOME": str(here.directory / "home"),
        "ANTHROPIC_BASE_URL": here.provider.url("rehearsal"),
        "ANTHROPIC_API_KEY": KEYS["rehearsal"],
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    argv = [*before, "claude", "--print", "-p", "echo ok", "--model", MODEL]
    return subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def measure(rounds: int, patient: int) -> tuple[Row, ...]:
    obtain("claude-code", AGENTS, npm=shutil.which("npm"), pip=None, environment=INSTALLER, progress=_quiet)
    with folder() as place, world(place, AGENTS / "bin") as here:
        began = time.monotonic()
        waiting = by_hand(here) if patient else None
        found = []
        with quiet():
            for _ in range(rounds):
                found.append(ours(here))
            probing = time.monotonic()
            probe = by_hand(here, "timeout", str(PROBE_S))
            words = probe.communicate(timeout=PROBE_S + 30)[0].strip()
            probe_s = time.monotonic() - probing
        whole, asking = (
            statistics.median(each) for each in zip(*((v.whole_s, v.asking_s) for v in found), strict=True)
        )
        rows = [
            Row(
                "wrong key, from the first question to the verdict; peer: the story's probe, which names nothing",
                f"{asking:.1f} s",
                f"{probe_s:.0f} s, exit code {probe.returncode}, {len(words)} bytes said",
                f"{asking / probe_s:.2f} x",
            ),
            Row("the same from the start of the command, Prefect's private server started for it", f"{whole:.1f} s"),
        ]
        if waiting is not None:
            last = waiting.communicate(timeout=PATIENCE_S)[0].strip().splitlines()[-1]
            patient_s = time.monotonic() - began
            said = last[:60].replace("|", " ").replace("\n", " ")
            rows.insert(
                1,
                Row(
                    f"peer: the agent's own defaults in text mode, whose last line is `{said}`",
                    f"{asking:.1f} s",
                    f"{patient_s:.0f} s",
                    f"{asking / patient_s:.3f} x",
                ),
            )
    return tuple(rows)


def _quiet(_: str) -> None:
    pass


def main() -> None:
    options = parser(__doc__, rounds=3, patient=1).parse_args()
    rows = measure(options.rounds, options.patient)
    version = subprocess.run(
        [AGENTS / "bin" / "claude", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": "/nonexistent"},
    ).stdout.strip()
    notes = (f"Medians of {options.rounds} rounds; {version}. There is no bar but the peers.",)
    tell(Part("Time to truth", command_of("truth", options), rows, notes), options.json)


if __name__ == "__main__":
    main()
