from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.ssh_host import SSHHost
from overnight.spec import HostSpec

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"
GIVEN: dict[str, Any] = {"address": "10.0.0.5", "user": "dev", "key_file": "~/.ssh/id_ed25519", "host_key": KEY}


def test_is_the_host_of_a_batch_file() -> None:
    block = SSHHost(**GIVEN, port=2222, slots=9, path=["/opt/bin"])
    expected = HostSpec(
        address="10.0.0.5",
        port=2222,
        user="dev",
        key_file=Path.home() / ".ssh/id_ed25519",
        host_key=KEY,
        slots=9,
        path=("/opt/bin",),
    )
    assert block.spec() == expected


def test_has_the_defaults_of_a_batch_file() -> None:
    assert SSHHost(**GIVEN).spec() == HostSpec(**GIVEN | {"key_file": Path.home() / ".ssh/id_ed25519"})


LINES = [KEY, f"{KEY} root@box", f" {KEY}\n", f"{KEY}\troot@box", f"10.0.0.5 {KEY}", f"[h]:2222 {KEY}"]


@pytest.mark.parametrize("line", LINES)
def test_pins_type_and_key_alone(line: str) -> None:
    assert SSHHost(**GIVEN | {"host_key": line}).host_key == KEY


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "dev@10.0.0.5"),
        ("address", "ssh://10.0.0.5"),
        ("address", ""),
        ("port", 0),
        ("port", 65536),
        ("user", ""),
        ("key_file", ""),
        ("host_key", ""),
        ("host_key", "ssh-ed25519"),
        ("host_key", "10.0.0.5 AAAAC3NzaC1lZDI1NTE5"),
        ("host_key", "SHA256:abcdef"),
        ("slots", 0),
        ("python", ""),
    ],
)
def test_refuses_by_field(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        SSHHost(**GIVEN | {field: value})
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


def test_the_form_explains_each_field_in_order() -> None:
    fields = SSHHost.model_json_schema()["properties"]
    order = [
        "address",
        "port",
        "user",
        "key_file",
        "host_key",
        "slots",
        "path",
        "python",
        "directory",
        "min_free_bytes",
    ]
    assert sorted(fields, key=lambda name: fields[name]["position"]) == order
    assert all(field["description"] for field in fields.values())
    assert SSHHost.get_block_type_slug() == "ssh-host"


@pytest.mark.full
@pytest.mark.usefixtures("prefect_api")
def test_saves_and_loads() -> None:
    block = SSHHost(**GIVEN, path=["/opt/bin"])
    block.save("box")
    loaded = SSHHost.load("box")
    assert isinstance(loaded, SSHHost)
    assert loaded.spec() == block.spec()
