"""What each fault does to a world, and what it hit. One row a kind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.chaos.machine import FAKETIME
from tests.chaos.schedule import Fault, Kind
from tests.chaos.world import World

Undo = Callable[[], Any]
SLOW_S = 0.15
JUMPS_S = (37 * 3600, -37 * 3600, 90, -90)


@dataclass(frozen=True)
class Hit:
    """What a fault really met. Moments by the machine's wall clock; `until` is when it was healed, 0 while it lasts."""

    kind: Kind
    at: float
    words: str
    host: str = ""
    run_id: str = ""
    until: float = 0.0


@dataclass(frozen=True)
class Struck:
    """A fault that found its target, and how it is healed."""

    words: str
    host: str = ""
    run_id: str = ""
    undo: Undo | None = None


def strike(here: World, fault: Fault) -> tuple[Hit, Undo | None] | None:
    """Let a fault happen now; None while there is nothing that it could hit."""
    at = time.time()
    struck = STRIKES[fault.kind](here, fault)
    if struck is None:
        return None
    return Hit(fault.kind, at, struck.words, struck.host, struck.run_id), struck.undo


def healed(hit: Hit) -> Hit:
    return replace(hit, until=time.time())


def _kill_controller(here: World, fault: Fault) -> Struck | None:
    process = here.controller
    if process is None or process.poll() is not None:
        return None
    process.kill()
    process.wait()
    return Struck(f"controller {len(here.controllers)}", undo=lambda: None)


def _kill_prefect(here: World, fault: Fault) -> Struck | None:
    pid = here.prefect().get("pid")
    if pid is None or not _ended(pid):
        return None
    return Struck(f"server {pid}")


def _ended(pid: int) -> bool:
    """Kill it; False when it had gone by itself."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _living(here: World, pick: int) -> tuple[str, str, int] | None:
    """Some living run of a task: host, run id, its agent's process."""
    batch = here.batch_id
    every = [(n, r, p) for n, m in here.machines.items() for r, p in sorted(m.living().items()) if batch in r]
    mine = [each for each in every if each[1].startswith(f"{batch}.t")]
    return mine[pick % len(mine)] if mine else None


def _kill_supervisor(here: World, fault: Fault) -> Struck | None:
    found = _living(here, fault.pick)
    pid = here.machines[found[0]].supervisor_of(found[1]) if found else None
    if found is None or pid is None or not _ended(pid):
        return None
    if fault.by_hand:  # the agent with it: nobody is left to be found
        _ended(found[2])
    return Struck(f"supervisor of {found[1]}{' and its agent' * fault.by_hand}", found[0], found[1])


def _kill_agent(here: World, fault: Fault) -> Struck | None:
    found = _living(here, fault.pick)
    if found is None or not _ended(found[2]):
        return None
    return Struck(f"agent of {found[1]}", found[0], found[1])


def _kill_sshd(here: World, fault: Fault) -> Struck:
    return Struck("listener and sessions", fault.host, undo=here.machines[fault.host].kill_sshd())


def _cut(here: World, fault: Fault) -> Struck:
    link = here.machines[fault.host].link
    link.freeze()
    return Struck("nothing passes", fault.host, undo=link.thaw)


def _slow(here: World, fault: Fault) -> Struck:
    link = here.machines[fault.host].link
    link.slow(SLOW_S)
    return Struck(f"{SLOW_S} s a piece", fault.host, undo=lambda: link.slow(0.0))


def _reset(here: World, fault: Fault) -> Struck:
    here.machines[fault.host].link.reset()
    return Struck("every connection", fault.host)


def _fill(here: World, fault: Fault) -> Struck:
    return Struck("not one byte left", fault.host, undo=here.machines[fault.host].fill())


def _freeze(here: World, fault: Fault) -> Struck:
    return Struck("every process", fault.host, undo=here.machines[fault.host].freeze())


def _jump(here: World, fault: Fault) -> Struck | None:
    if FAKETIME is None:
        return None
    seconds = JUMPS_S[fault.pick % len(JUMPS_S)]
    here.machines[fault.host].jump(seconds)
    return Struck(f"wall clock by {seconds:+d} s", fault.host)


def _reboot(here: World, fault: Fault) -> Struck:
    return Struck("power lost, new boot id", fault.host, undo=here.machines[fault.host].reboot_later())


def _twin(here: World, fault: Fault) -> Struck | None:
    if not here.batch_id or here.controller is None or here.controller.poll() is not None:
        return None
    here.start_twin()
    return Struck("a second controller for the same batch")


def _cancel(here: World, fault: Fault) -> Struck | None:
    process = here.controller
    if not here.batch_id or process is None or process.poll() is not None:
        return None
    here.ending = True
    if fault.by_hand:
        process.kill()
        process.wait()
        return Struck("controller killed, then by command")
    process.send_signal(signal.SIGINT)
    return Struck("by Ctrl-C")


STRIKES: Mapping[Kind, Callable[[World, Fault], Struck | None]] = {
    "kill-controller": _kill_controller,
    "kill-prefect": _kill_prefect,
    "kill-supervisor": _kill_supervisor,
    "kill-agent": _kill_agent,
    "kill-sshd": _kill_sshd,
    "cut": _cut,
    "slow": _slow,
    "reset": _reset,
    "fill-disk": _fill,
    "freeze": _freeze,
    "jump-clock": _jump,
    "reboot": _reboot,
    "twin": _twin,
    "cancel": _cancel,
}
