"""One host as a machine of its own: its processes, boot id, monotonic clock, home and disk are nobody else's.

A host is a PID, mount and time namespace with a real sshd in it, reached
through a link that can be cut. It shares the network with the controller, on
loopback: what a network namespace would add, the link does already.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from overnight.rehearsal.link import Link

SSHD = "/usr/sbin/sshd"
DISK = "48m"
UP_S = 20.0
_LISTENER = (f"sshd: {SSHD}", SSHD)
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)  # where Debian puts it

# the first process of the machine: takes in orphans, and keeps sshd up while the machine is not told to be down
_INIT = """
mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id && mount --bind "$1/home" "$2" || exit 1
while :; do
  [ -e "$1/down" ] || "$3" -D -e -f "$1/sshd_config" 2>>"$1/sshd.log"
  sleep 0.1
done
"""


class Machine:
    """A host. Use as a context manager: it is booted on entry; on exit all it started is gone, its disk with it.

    Args:
        clock_s: Where its monotonic clock begins.
        jumping: Whether its wall clock can be moved. It costs a file that is read at each look at the clock.
    """

    def __init__(self, name: str, folder: Path, clock_s: int, jumping: bool) -> None:
        self.name = name
        self.folder = folder
        self.home = folder / "home"
        self.runs = self.home / ".overnight" / "runs"
        self._clock_s = clock_s
        self._jumping = jumping
        self._root: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        self._port = _free_port()
        self.link = Link(self._port)

    def __enter__(self) -> Machine:
        self.home.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(self.home)], check=True)
        for name in ("host_key", "user_key"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(argv, check=True)
        self.jump(0)
        (self.folder / "sshd_config").write_text("\n".join(self._config()) + "\n")
        self.link.__enter__()
        self.boot()
        return self

    def __exit__(self, *_: object) -> None:
        self.halt()
        self.link.__exit__(None, None, None)
        for _again in range(100):  # a process that was just killed holds its mount for a moment
            if subprocess.run(["umount", str(self.home)], check=False, capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        subprocess.run(["umount", "-l", str(self.home)], check=False)

    def _config(self) -> Iterator[str]:
        yield f"ListenAddress 127.0.0.1:{self._port}"
        yield f"HostKey {self.folder / 'host_key'}"
        yield f"AuthorizedKeysFile {self.folder / 'user_key.pub'}"
        yield from ("PidFile none", "StrictModes no", "UsePAM no", "PasswordAuthentication no")
        yield "PermitRootLogin prohibit-password"
        if self._jumping and FAKETIME:
            # reaches what sshd starts, so our side of the host; an agent's environment is its own
            clock = f"FAKETIME_TIMESTAMP_FILE={self.folder / 'clock'} FAKETIME_NO_CACHE=1"
            yield f"SetEnv LD_PRELOAD={FAKETIME} {clock} FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_DISABLE_SHM=1"

    def described(self, slots: int, agents: Path) -> dict[str, Any]:
        """This host in a batch file."""
        return {
            "address": "127.0.0.1",
            "port": self.link.port,
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "key_file": str(self.folder / "user_key"),
            "min_free_bytes": 0,  # its small disk is there to be filled
            "host_key": " ".join((self.folder / "host_key.pub").read_text().split()[:2]),
            "slots": slots,
            "path": [str(agents)],
        }

    # --- its life ---

    def boot(self) -> None:
        """Come up with a new boot id and a monotonic clock that began somewhere else."""
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        clock = ["--time", "--monotonic", str(self._clock_s), "--boottime", str(self._clock_s)]
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *clock]
        home = pwd.getpwuid(os.getuid()).pw_dir
        argv = [*own, "/bin/sh", "-c", _INIT, "init", str(self.folder), home, SSHD]
        self._root = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/")
        _wait(self._answers, f"{self.name} did not come up")

    def halt(self) -> None:
        """Lose power: every process of it is gone at once, and none is told."""
        self._frozen.clear()
        if self._root is not None:
            init = _children(self._root.pid)
            _kill(init, signal.SIGKILL)  # the kernel ends all of a namespace with its first process
            self._root.kill()
            self._root.wait()
            self._root = None

    def reboot_later(self) -> Callable[[], None]:
        """Halt now; what is returned boots it again, its clock at another place."""
        self.halt()
        self._clock_s += 4000
        return self.boot

    # --- what may happen to it ---

    def freeze(self) -> Callable[[], None]:
        """Stop every process; what is returned lets them go on."""
        for _ in range(3):  # one that was being born may have been missed
            pids = self.processes()
            _kill(pids, signal.SIGSTOP)
            self._frozen += pids
        return self._thaw

    def _thaw(self) -> None:
        _kill(self._frozen, signal.SIGCONT)
        self._frozen.clear()

    def kill_sshd(self) -> Callable[[], None]:
        """End the listener and every session of it; what is returned lets a new one come."""
        down = self.folder / "down"
        down.touch()
        _kill([pid for pid in self.processes() if _name(pid) == "sshd"], signal.SIGKILL)
        return lambda: down.unlink(missing_ok=True)

    def fill(self) -> Callable[[], None]:
        """Leave not one byte free; what is returned frees it again."""
        filler = self.home / "filler"
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError), filler.open("ab", buffering=0) as file:
                while file.write(bytes(size)) == size:
                    pass
        return lambda: filler.unlink(missing_ok=True)

    def jump(self, seconds: int) -> None:
        """Move the wall clock of our side of the host. Needs libfaketime."""
        new = self.folder / "clock.new"
        new.write_text(f"{seconds:+d}\n")
        new.rename(self.folder / "clock")

    # --- what can be seen of it ---

    def processes(self) -> list[int]:
        """All of them but the first, by the numbers they have outside."""
        init = _children(self._root.pid) if self._root else []
        mine = {_namespace(pid) for pid in init}
        return [pid for pid in pids() if pid not in init and _namespace(pid) in mine]

    def own(self) -> set[int]:
        """All that make the machine up, the one outside that holds it among them."""
        root = [self._root.pid] if self._root else []
        return {*self.processes(), *root, *(pid for each in root for pid in _children(each))}

    def pid_of(self, inner: int) -> int | None:
        """The number outside of a process that is called `inner` there."""
        return next((pid for pid in self.processes() if _numbers(pid)[-1:] == [inner]), None)

    def living(self) -> dict[str, int]:
        """Runs that are not over -> their agent's number outside."""
        found = {}
        for path in self.runs.glob("*/started.json"):
            if not path.with_name("exit.json").exists():
                pid = self.pid_of(_field(path, "pid"))
                if pid is not None:
                    found[path.parent.name] = pid
        return found

    def supervisor_of(self, run_id: str) -> int | None:
        return self.pid_of(_field(self.runs / run_id / "started.json", "supervisor"))

    def strays(self) -> list[str]:
        """Processes that nobody should have left here."""
        return [
            f"{self.name}: {line}" for line in map(_line, self.processes()) if line and not line.startswith(_LISTENER)
        ]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as way:
                return way.recv(4) == b"SSH-"
        except OSError:
            return False


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _namespace(pid: int) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""


def _numbers(pid: int) -> list[int]:
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return [int(word) for line in lines if line.startswith("NSpid:") for word in line.split()[1:]]
    return []


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def command_of(pid: int) -> str:
    """Its command line on one line, cut; empty for a zombie.

    Raises:
        OSError: it is gone.
    """
    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return " ".join(words.split())[:160]


def _line(pid: int) -> str:
    """Its command line; empty for one that is gone, a zombie, or the pause of the first process."""
    with suppress(OSError):
        words = command_of(pid)
        return "" if words == "sleep 0.1" else words
    return ""


def _field(path: Path, name: str) -> int:
    with suppress(OSError, ValueError, KeyError):
        return int(json.loads(path.read_text())[name])
    return -1


def _kill(targets: list[int], number: int) -> None:
    for pid in targets:
        with suppress(OSError):
            os.kill(pid, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(true: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + UP_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(problem)
        time.sleep(0.02)
