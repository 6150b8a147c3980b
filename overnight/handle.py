"""Where a started run lives; enough to find it again from nothing but this record."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from overnight.session import Resumed


class RunHandle(BaseModel):
    """A run that was handed to a host. Survives any restart as JSON.

    `run_dir` and `work_dir` are absolute paths on the host. `base_sha` is the
    commit the workspace was made from, full length.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    host: str
    run_dir: str
    work_dir: str
    base_sha: str
    started_at: datetime
    harness_version: str | None = None
    resumed: Resumed | None = None
