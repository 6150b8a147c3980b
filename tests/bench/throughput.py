"""How fast much output comes home: 1 GB of a run's log followed and stored, against `ssh host cat > file`.

    python -m tests.bench.throughput [--megabytes 1000] [--rounds 3]

Lines of JSON, 4 kB each, already written when the clock starts. Ours goes by
the follow channel into the run's own copy, every byte searched for the key.
The last row also reads every line as an agent's event, which no peer does.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import queue
import statistics
import subprocess
import time
from pathlib import Path

from overnight.events import Exited, RunEvent
from overnight.follow import Follower, RunCopy
from overnight.harnesses import HARNESSES
from overnight.remote import Remote
from overnight.spec import HostSpec
from overnight.station import make_host
from overnight.supervisor import boot_id
from overnight.watch import Watch
from tests import sshd
from tests.bench.rig import Part, Row, command_of, folder, parser, quiet, run, tell
from tests.overnight.desks import plan_of
from tests.overnight.nights import KEY, PYTHON

LINE = (json.dumps({"type": "text", "text": "agent " * 660}) + "\n").encode()


def ended_run(root: Path, run_id: str, megabytes: int) -> Path:
    """The record of a run that has ended, with that much output; its file."""
    place = root / "runs" / run_id
    place.mkdir(parents=True)
    (place / "claim").write_text('{"digest": "d"}')
    (place / "started.json").write_text(json.dumps({"pid": 1, "supervisor": 1, "boot_id": boot_id(), "boot_s": 0.0}))
    with (place / "lock").open("w") as lock, (place / "out").open("wb") as out:
        fcntl.flock(lock, fcntl.LOCK_EX)
        block = LINE * 250
        for _ in range(megabytes * 1_000_000 // len(block)):
            out.write(block)
    (place / "err").touch()
    record = {"reason": "exited", "code": 0, "signal": None, "seconds": 1.0, "max_rss_bytes": 0, "oom_kills": 0}
    more = {"oom_kills_own": 0, "survivors": 0, "exec_error": None, "disk_free_bytes": 1}
    (place / "exit.json").write_text(json.dumps(record | more))
    return place / "out"


def followed(remote: Remote, run_id: str, copy: Path, *, read: bool) -> float:
    """Seconds until the whole of it lies here and the run's end was told."""
    events: queue.Queue[RunEvent] = queue.Queue()
    watch = Watch(plan_of("/nowhere"), HARNESSES["scripted"], ())
    mine = RunCopy(copy, [KEY.encode()])
    follower = Follower(remote)
    began = time.monotonic()
    try:
        follower.watch(run_id, mine, events.put)
        while True:
            event = events.get(timeout=120)
            if read:
                watch.take(event)
            if isinstance(event, Exited):
                return time.monotonic() - began
    finally:
        mine.close()
        follower.close()


def catted(server: sshd.Sshd, known: Path, source: Path, copy: Path) -> float:
    argv = ["ssh", "-F", "none", "-p", str(server.port), "-i", str(server.key_file), f"-oUserKnownHostsFile={known}"]
    began = time.monotonic()
    with copy.open("wb") as file:
        subprocess.run([*argv, f"{getpass.getuser()}@127.0.0.1", f"cat {source}"], stdout=file, check=True)
    return time.monotonic() - began


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def measure(megabytes: int, rounds: int) -> tuple[Row, ...]:
    ours, theirs, reading = [], [], []
    with folder() as place, sshd.serving(place) as server:
        known = place / "known_hosts"
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
        source = ended_run(place / "host", "b.t.1", megabytes)
        small = ended_run(place / "host", "b.small.1", max(1, megabytes // 10))
        host = make_host("box", HostSpec.model_validate(server.described(place / "host", PYTHON, 4)))
        remote = Remote(host, str(place / "host"))
        remote.install()
        for number in range(rounds):
            with quiet():
                ours.append(followed(remote, "b.t.1", place / f"copy-{number}", read=False))
                theirs.append(catted(server, known, source, place / "cat"))
                reading.append(followed(remote, "b.small.1", place / f"small-{number}", read=True))
            if digest(place / f"copy-{number}" / "out") != digest(source):
                raise SystemExit("the copy is another than what was written")
            run(["rm", "-r", place / f"copy-{number}", place / "cat"])
        size, little = source.stat().st_size / 1e6, small.stat().st_size / 1e6
        remote.close()
    mine, peer = (size / statistics.median(each) for each in (ours, theirs))
    all_read = little / statistics.median(reading)
    return (
        Row(
            f"{size:.0f} MB followed and stored, against `ssh host cat > file`",
            f"{mine:.0f} MB/s",
            f"{peer:.0f} MB/s",
            f"{mine / peer:.2f} x",
            ">= 0.6 x",
            mine / peer >= 0.6,
        ),
        Row(
            f"{little:.0f} MB followed, stored and read event by event",
            f"{all_read:.0f} MB/s",
            f"{peer:.0f} MB/s",
            f"{all_read / peer:.2f} x",
        ),
    )


def main() -> None:
    options = parser(__doc__, megabytes=1000, rounds=3).parse_args()
    rows = measure(options.megabytes, options.rounds)
    notes = (f"Medians of {options.rounds} interleaved rounds; each copy compared with its source by hash.",)
    tell(Part("Throughput", command_of("throughput", options), rows, notes), options.json)


if __name__ == "__main__":
    main()
