import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from pydantic import SecretStr

from blocks.provider_credentials import ProviderCredentials
from blocks.register import BLOCKS, register

ROOT = Path(__file__).resolve().parents[2]
SLUGS = ["provider-credentials", "ssh-host"]


@pytest.fixture
def no_block_types(prefect_api: None) -> None:
    with get_client(sync_client=True) as client:
        for slug in SLUGS:
            try:
                client.delete_block_type(client.read_block_type_by_slug(slug).id)
            except ObjectNotFound:
                continue


def test_covers_every_block() -> None:
    assert [block.get_block_type_slug() for block in BLOCKS] == SLUGS


@pytest.mark.full
@pytest.mark.usefixtures("no_block_types")
def test_twice_is_as_good_as_once_and_keeps_what_is_saved() -> None:
    assert register() == [f"registered block type {slug}" for slug in SLUGS]
    ProviderCredentials(provider="zai", key=SecretStr("0123.abc")).save("kept")
    assert register() == [f"refreshed block type {slug}" for slug in SLUGS]
    kept = ProviderCredentials.load("kept")
    assert isinstance(kept, ProviderCredentials)
    assert kept.key.get_secret_value() == "0123.abc"


@pytest.mark.full
@pytest.mark.usefixtures("no_block_types")
@pytest.mark.parametrize("command", [["-m", "deployments.bootstrap"], ["deployments/bootstrap.py"]])
def test_runs_as_module_and_as_file(command: list[str]) -> None:
    # PYTHONPATH: the file form finds our packages only where the project is installed, which a test must not need
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT)}
    environ["PREFECT_API_URL"] = PREFECT_API_URL.value()
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == [f"registered block type {slug}" for slug in SLUGS]


def test_without_an_api_nothing_is_registered_nowhere() -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "deployments.bootstrap"]
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "PREFECT_API_URL" in done.stderr
