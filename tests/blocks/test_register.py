"""The block types as Prefect's own command registers them, and as its API then shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

import blocks

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("prefect_api")]


def test_prefect_registers_the_installed_blocks_from_any_folder(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "DO_NOT_TRACK": "1", "COLUMNS": "200"}
    environ["PREFECT_API_URL"] = PREFECT_API_URL.value()
    for _ in range(2):
        argv = [sys.executable, "-m", "prefect", "block", "register", "-m", "blocks"]
        done = subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "registered 3 blocks" in done.stdout
    with get_client(sync_client=True) as client:
        for block in (blocks.ProviderCredentials, blocks.SSHHost):
            found = client.read_block_type_by_slug(block.get_block_type_slug())
            assert "overnight" in str(found.description)
            assert f"from blocks import {block.__name__}" in str(found.code_example)
            # a server without the internet could show neither
            assert (found.logo_url, found.documentation_url) == (None, None)
