"""What a run costs beside its agent: 100 runs of an agent with nothing to do but one commit, 20 at a time.

    python -m tests.bench.overhead [--runs 100] [--rounds 3] [--ansible 1]

One real sshd. Ours is `python -m flows.batch` as a user types it, against a
Prefect server that runs already, every state of every task recorded. The peers
do the four steps and nothing else: a clone that shares objects, a branch, the
same agent with the same instruction, a fetch of its commit. None of them
probes the route, survives its own death, judges the run or checks what it
fetches. The peers get the connections they would like (MaxSessions,
MaxStartups), and so do we.
"""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from overnight.harnesses import scripted_agent
from tests import sshd
from tests.bench import peers
from tests.bench.prefect_cost import cpu_s
from tests.bench.rig import Part, Row, Spent, against, command_of, folder, parser, quiet, run, spent, tell
from tests.flows.teamed import Team, team
from tests.flows.world import ROOT
from tests.overnight.nights import COMMIT, IDENTITY, MODEL, git, make_repo

AT_ONCE = 20
SSHD = ("MaxSessions 200", "MaxStartups 200")
INSTRUCTION = "\n".join(["```script", json.dumps({"sh": COMMIT}), "```"])
LIMITS = {"first_event_s": None, "quiet_s": None, "total_s": 600, "grace_s": 1, "attempts": 1}


@dataclass
class Yard:
    """Where the peers work: a mirror and an agent on the host, a repository here. Each round has its own folder."""

    here: Team
    runs: int
    rounds: int = 0
    argv: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory = self.here.directory / "peers"
        self.directory.mkdir()
        self.home = make_repo(self.directory / "home").path
        git(self.directory, "clone", "-q", "--bare", str(self.home), "mirror.git")
        shutil.copy(scripted_agent.__file__, self.directory / "agent.py")
        host = self.here.host
        self.port, self.key_file = host["port"], host["key_file"]
        self.known = self.directory / "known_hosts"
        self.known.write_text(f"[127.0.0.1]:{self.port} {host['host_key']}\n")

    def fresh(self) -> Path:
        self.rounds += 1
        place = self.directory / f"round-{self.rounds}"
        place.mkdir()
        (place / "steps.sh").write_text("\n".join(["set -e", *self.steps(place, "$1"), ""]))
        return place

    def ssh(self, control: Path | None = None) -> list[str]:
        options = ["BatchMode=yes", f"UserKnownHostsFile={self.known}", "LogLevel=ERROR"]
        options += [f"ControlPath={control}"] if control else []
        return ["ssh", "-F", "none", "-p", str(self.port), "-i", str(self.key_file), *(f"-o{o}" for o in options)]

    def steps(self, place: Path, run_id: str) -> list[str]:
        """Clone, branch and agent. As a file on the host they need not be quoted by anybody."""
        names = " ".join(f"{name}={shlex.quote(value)}" for name, value in IDENTITY.items())
        return [
            f"git clone -q --shared --no-checkout {self.directory}/mirror.git {place}/{run_id}",
            f"cd {place}/{run_id} && git checkout -q -b overnight/{run_id} main",
            f"cd {place}/{run_id} && {names} python3 -I -S {self.directory}/agent.py --model {MODEL}"
            f" -- {shlex.quote(INSTRUCTION)}",
        ]

    def fetch(self, place: Path | str, run_id: str) -> str:
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{place}/{run_id}"
        what = f"+refs/heads/overnight/{run_id}:refs/peers/{run_id}"
        return f"git -C {self.home} -c gc.auto=0 fetch -q --no-tags --no-write-fetch-head {url} {what}"

    def check(self) -> None:
        """All commits are home; then they go, so that the next peer finds what the first one found."""
        refs = git(self.home, "for-each-ref", "--format=%(refname)", "refs/peers").splitlines()
        if len(refs) != self.runs:
            raise SystemExit(f"{len(refs)} of {self.runs} commits came home")
        for ref in refs:
            git(self.home, "update-ref", "-d", ref)


def shell_loop(yard: Yard) -> Spent:
    """`xargs -P20`, one master connection."""
    place = yard.fresh()
    control = place / "ctl"
    ssh = shlex.join([*yard.ssh(control), f"{getpass.getuser()}@127.0.0.1"])
    script = place / "run.sh"
    steps = f"{ssh} sh {place}/steps.sh $1 > {place}/$1.out"
    script.write_text(f"set -e\n{steps}\n{yard.fetch(place, '$1')}\n")
    master = [*yard.ssh(control), "-M", "-N", f"{getpass.getuser()}@127.0.0.1"]
    names = place / "names"
    names.write_text("".join(f"r{i}\n" for i in range(yard.runs)))
    loop: list[str | Path] = ["xargs", "-a", names, f"-P{AT_ONCE}", "-n1", "sh", script]
    env = {"PATH": os.environ["PATH"], "HOME": str(place), "GIT_SSH_COMMAND": shlex.join(yard.ssh(control))}

    def all_of_it() -> None:
        with subprocess.Popen([*map(str, master)], stdin=subprocess.DEVNULL, env=env) as connection:
            sshd.wait_until(control.exists)
            try:
                run(loop, env=env)
            finally:
                connection.terminate()

    with quiet():
        found = spent(all_of_it)
    yard.check()
    return found


def parallel_ssh(yard: Yard) -> Spent:
    return _peer(yard, "parallel_ssh.py")


def ansible(yard: Yard) -> Spent:
    return _peer(yard, "ansible_play.py")


def tuned_ansible(yard: Yard) -> Spent:
    return _peer(yard, "ansible_play.py", "tuned")


def _peer(yard: Yard, program: str, *options: str) -> Spent:
    """A program of ours in the peers' environment; it reads what is to be done."""
    place = yard.fresh()
    runs = [f"r{i}" for i in range(yard.runs)]
    order = {
        "user": getpass.getuser(),
        "port": yard.port,
        "key_file": str(yard.key_file),
        "known_hosts": str(yard.known),
        "at_once": AT_ONCE,
        "place": str(place),
        "runs": [
            {
                "id": each,
                "steps": f"sh {place}/steps.sh {each}",
                "single_steps": yard.steps(place, each),
                "fetch": yard.fetch(place, each),
            }
            for each in runs
        ],
    }
    (place / "order.json").write_text(json.dumps(order))
    env = {"PATH": f"{peers.BIN}:{os.environ['PATH']}", "HOME": str(place), "LANG": "C.UTF-8"}
    env |= {"GIT_SSH_COMMAND": shlex.join(yard.ssh())}
    with quiet():
        play = Path(__file__).with_name("peer_programs") / program
        argv: list[str | Path] = [peers.BIN / "python", play, place / "order.json", *options]
        found = spent(lambda: run(argv, env=env))
    yard.check()
    return found


@dataclass(frozen=True)
class Ours:
    """A batch of ours, and what Prefect's server spent on it meanwhile."""

    spent: Spent
    server_cpu_s: float


def ours(here: Team, runs: int, number: int) -> Ours:
    """A whole command; its commits are counted in the report."""
    name = f"overhead-{number}"
    route = {"host": "box", "harness": "scripted", "provider": "rehearsal", "model": MODEL}
    defaults = {"repo": str(here.repo), "base": "main", "route": route, "limits": LIMITS, "ask_for_commit": False}
    wanted = [{"id": f"t{i}", "instruction": INSTRUCTION} for i in range(runs)]
    path, found = here.directory / f"{name}.yaml", here.directory / f"{name}.json"
    path.write_text(json.dumps({"name": name, "hosts": here.hosts, "defaults": defaults, "tasks": wanted}))
    argv: list[str | Path] = [
        sys.executable,
        "-m",
        "flows.batch",
        path,
        "--lock",
        here.directory / "lock.json",
        "--json",
        found,
    ]
    server = [process for each in here.apis for process in each.tree()]
    with quiet():
        before = cpu_s(server)
        cost = spent(lambda: run([*argv, "--state", here.directory / "state"], env=here.env, cwd=ROOT))
        served = cpu_s(server) - before
    report = json.loads(found.read_text())
    if report["counts"]["succeeded"] != runs:
        raise SystemExit(f"not all succeeded: {report['counts']}")
    return Ours(cost, served)


@contextmanager
def site() -> Iterator[Team]:
    with folder() as place, team(place / "team", (), ("box",), AT_ONCE, 0, sshd_lines=SSHD) as here:
        yield here


def measure(runs: int, rounds: int, of_ansible: int) -> tuple[Row, ...]:
    found: dict[str, list[Spent]] = {"ours": [], "shell": [], "pssh": [], "ansible": [], "tuned": []}
    served = []
    with site() as here:
        yard = Yard(here, runs)
        others: dict[str, Callable[[Yard], Spent]] = {"shell": shell_loop, "pssh": parallel_ssh}
        for number in range(rounds):
            mine = ours(here, runs, number)
            found["ours"].append(mine.spent)
            served.append(mine.server_cpu_s)
            for name, peer in others.items():
                found[name].append(peer(yard))
            if number < of_ansible:
                found["ansible"].append(ansible(yard))
                found["tuned"].append(tuned_ansible(yard))
    wall = {name: statistics.median(each.wall_s for each in values) for name, values in found.items() if values}
    cpu = {name: statistics.median(each.cpu_s for each in values) for name, values in found.items() if values}
    rows = [
        against("wall, against the shell loop", wall["ours"], wall["shell"], "s", most=1.5),
        against("wall, against parallel-ssh", wall["ours"], wall["pssh"], "s"),
        against("controller CPU, against the shell loop", cpu["ours"], cpu["shell"], "s"),
        against("controller CPU, against parallel-ssh", cpu["ours"], cpu["pssh"], "s"),
    ]
    if "ansible" in wall:
        rows.append(against("wall, against Ansible", wall["ours"], wall["ansible"], "s", most=0.2))
        rows.append(against("controller CPU, against Ansible", cpu["ours"], cpu["ansible"], "s"))
        rows.append(against("wall, against Ansible tuned", wall["ours"], wall["tuned"], "s"))
        rows.append(against("controller CPU, against Ansible tuned", cpu["ours"], cpu["tuned"], "s"))
    rows.append(Row("Prefect's server, CPU", f"{statistics.median(served):.1f} s"))
    return tuple(rows)


def main() -> None:
    made = parser(__doc__, runs=100, rounds=3, ansible=1)
    options = made.parse_args()
    peers.provide()
    rows = measure(options.runs, options.rounds, options.ansible)
    notes = (
        f"{options.runs} runs, {AT_ONCE} at a time, medians of {options.rounds} interleaved rounds "
        f"(Ansible: {options.ansible}); {peers.versions()}.",
    )
    tell(Part("Overhead of a run", command_of("overhead", options), rows, notes), options.json)


if __name__ == "__main__":
    main()
