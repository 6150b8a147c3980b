"""The steps of a run by Ansible, the fetch as a task on this machine. Reads an order, see `overhead.py`.

As it comes, a task a step; with `tuned` as fast as it gets: pipelining, nobody
waits for another's step, all steps on the host in one task. One kept
connection for all and no facts either way.
"""

import json
import os
import sys
from pathlib import Path

with open(sys.argv[1]) as file:
    order = json.load(file)
place = Path(order["place"])
ssh = f"-F none -o UserKnownHostsFile={order['known_hosts']} -o ControlMaster=auto -o ControlPersist=30"
common = {
    "ansible_host": "127.0.0.1",
    "ansible_port": order["port"],
    "ansible_user": order["user"],
    "ansible_ssh_private_key_file": order["key_file"],
    "ansible_ssh_args": ssh,
    "ansible_control_path": f"{place}/ctl",
    "ansible_python_interpreter": "/usr/bin/python3",
}
inventory = {"all": {"vars": common, "hosts": {each["id"]: each for each in order["runs"]}}}
tuned = "tuned" in sys.argv[2:]
on_host = ["{{ steps }}"] if tuned else [f"{{{{ single_steps[{step}] }}}}" for step in range(3)]
play = {
    "hosts": "all",
    "gather_facts": False,
    "strategy": "free" if tuned else "linear",
    "tasks": [
        *({"name": f"on the host, {number}", "ansible.builtin.shell": step} for number, step in enumerate(on_host)),
        {"name": "fetch", "ansible.builtin.shell": "{{ fetch }}", "delegate_to": "localhost"},
    ],
}
(place / "inventory.json").write_text(json.dumps(inventory))
(place / "play.json").write_text(json.dumps([play]))
settings = {
    "ANSIBLE_PIPELINING": "1" if tuned else "0",
    "ANSIBLE_FORKS": str(order["at_once"]),
    "ANSIBLE_HOME": str(place / "ansible"),
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_INVENTORY_ENABLED": "yaml",
}
os.execvpe(
    "ansible-playbook",
    ["ansible-playbook", "-i", str(place / "inventory.json"), str(place / "play.json")],
    {**os.environ, **settings},
)
