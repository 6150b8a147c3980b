"""The files for a team's server: Prefect ignores a misspelt setting, and compose starts with an empty password."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import Settings
from pydantic import AliasChoices, BaseModel
from ruamel.yaml import YAML

FOLDER = Path(__file__).resolve().parents[2] / "deployments"
COMPOSE: dict[str, Any] = YAML(typ="safe").load((FOLDER / "compose.yaml").read_text())
SECRET = ("PASSWORD", "AUTH_STRING", "ENCRYPTION_KEY", "CONNECTION_URL")


def pairs(name: str) -> dict[str, str]:
    lines = (FOLDER / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def known(model: type[BaseModel] = Settings, prefix: str = "PREFECT_") -> set[str]:
    """Every variable that Prefect reads a setting from."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= known(field.annotation, f"{prefix}{name.upper()}_")
        else:
            alias = field.validation_alias
            aliases = alias.choices if isinstance(alias, AliasChoices) else ()
            found |= {f"{prefix}{name}".upper(), *(str(each).upper() for each in aliases)}
    return found


@pytest.mark.parametrize("name", ["server.env", "team.env"])
def test_every_setting_is_one_of_prefect_and_the_shell_reads_the_same(name: str) -> None:
    assert set(pairs(name)) <= {*known(), "DO_NOT_TRACK"}
    shown = subprocess.run(["sh", "-ac", f". {FOLDER / name}; env"], env={}, capture_output=True, text=True, check=True)
    assert {f"{key}={value}" for key, value in pairs(name).items()} <= set(shown.stdout.splitlines())


def test_compose_names_settings_of_prefect_and_no_secret() -> None:
    others = {"DO_NOT_TRACK", "XDG_STATE_HOME", "PREFECT_REDIS_MESSAGING_HOST", "PREFECT_REDIS_MESSAGING_PORT"}
    others |= {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE"}
    for name, service in COMPOSE["services"].items():
        given = service.get("environment", {})
        assert set(given) <= {*known(), *others}, name
        secret = {key: value for key, value in given.items() if any(part in key for part in SECRET)}
        assert all(value.startswith("/run/secrets/") for value in secret.values()), name


def test_compose_lists_every_secret_and_publishes_on_loopback_only() -> None:
    for service in COMPOSE["services"].values():
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert ports == ["${OVERNIGHT_LISTEN:-127.0.0.1}:4200:4200"]


def test_the_entrypoint_puts_secrets_into_the_environment_of_what_it_starts(tmp_path: Path) -> None:
    for secret, text in (("database", "d-1"), ("login", "overnight:l-2"), ("encryption", "e-3")):
        (tmp_path / secret).write_text(text)
    *shell, zero = COMPOSE["services"]["api"]["entrypoint"]
    script = shell[-1].replace("$$", "$").replace("/run/secrets", str(tmp_path))
    argv = [*shell[:-1], script, zero, "sh", "-c", "env"]
    path = {"PATH": "/usr/bin:/bin"}
    seen = subprocess.run(argv, env=path, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"PREFECT_SERVER_DATABASE_PASSWORD=d-1", "PREFECT_SERVER_API_AUTH_STRING=overnight:l-2"} <= set(seen)
    assert {"PREFECT_API_AUTH_STRING=overnight:l-2", "PREFECT_SERVER_ENCRYPTION_KEY=e-3"} <= set(seen)
