from __future__ import annotations

import pytest

from overnight.harnesses import HARNESSES
from tests.contracts.harness import HarnessContract


@pytest.mark.parametrize("harness", HARNESSES.values(), ids=list(HARNESSES))
class TestEveryHarness(HarnessContract):
    pass
