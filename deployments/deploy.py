"""Brings `prefect.yaml` to a Prefect API without undoing what a user changed on its pages.

Not by `prefect deploy`: that one writes parameters and schedules anew each
time, so an upgrade would switch off the night that somebody switched on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from ruamel.yaml import YAML

from flows.nightly import DOCTOR_EARLIER_MIN, clock, daily, spoken, zone

FILE = Path(__file__).resolve().parent / "prefect.yaml"
NIGHT, DOCTOR = "batch/overnight", "doctor/doctor"


@dataclass(frozen=True)
class Nightly:
    """A batch file for every night; `file` None leaves the schedule that is there as it is."""

    file: Path | None = None
    at: str | None = None
    timezone: str | None = None


def deploy(
    client: SyncPrefectClient, pool: str, env: Mapping[str, str], state: Path | None, nightly: Nightly
) -> list[str]:
    """Create or refresh every deployment; one line for each.

    Args:
        pool: Work pool that runs them; it must exist.
        env: Variables of their flow runs beside those of the file; earlier ones that are not given now stay.
        state: State directory to put into their parameters; None leaves it.

    Raises:
        BadInput: the time or the zone of the night cannot be used.
    """
    wanted = YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))
    lines = []
    for entry in wanted["deployments"]:
        flow: Flow[..., Any] = load_flow_from_entrypoint(entry["entrypoint"])
        name = f"{flow.name}/{entry['name']}"
        parameters = {} if state is None else {"state": str(state)}
        if nightly.file is not None and name in (NIGHT, DOCTOR):
            parameters["files"] = [str(nightly.file)]  # type: ignore[assignment]  # a parameter has any type
        job = entry["work_pool"]["job_variables"]
        owned: dict[str, Any] = {
            "entrypoint": entry["entrypoint"],
            "description": entry.get("description") or _about(flow),
            "tags": entry["tags"],
            "enforce_parameter_schema": entry["enforce_parameter_schema"],
            "parameter_openapi_schema": parameter_schema(flow).model_dump_for_openapi(),
            "work_pool_name": pool,
            "job_variables": {**job, "env": {**job["env"], **env}},
        }
        try:
            found = client.read_deployment_by_name(name)
        except ObjectNotFound:
            _create(client, client.create_flow(flow), entry, owned, parameters, nightly)
            lines.append(f"deployment {name}: created")
            continue
        changed = _refresh(client, found, owned, parameters) + _reschedule(client, found, entry, nightly)
        lines.append(f"deployment {name}: {'updated: ' + ', '.join(changed) if changed else 'unchanged'}")
    return lines


def night(client: SyncPrefectClient) -> str:
    """What is going to happen tonight, in a line."""
    found = client.read_deployment_by_name(NIGHT)
    active = [each for each in client.read_deployment_schedules(found.id) if each.active]
    files = ", ".join(found.parameters.get("files", ()))
    if not active or found.paused:
        return "nightly: none; choose one with overnight up --nightly FILE"
    when = " and ".join(
        f"{spoken(each.schedule.cron)} {each.schedule.timezone or 'UTC'}"
        if isinstance(each.schedule, CronSchedule)
        else "times of its own"
        for each in active
    )
    return f"nightly: {files or 'no file, so it will fail'}, {when}"


def _create(
    client: SyncPrefectClient,
    flow_id: Any,
    entry: Mapping[str, Any],
    owned: Mapping[str, Any],
    parameters: Mapping[str, Any],
    nightly: Nightly,
) -> None:
    limit = entry.get("concurrency_limit")
    client.create_deployment(
        flow_id,
        name=entry["name"],
        **owned,
        parameters={**entry.get("parameters", {}), **parameters},
        concurrency_limit=limit["limit"] if limit else None,
        concurrency_options=ConcurrencyOptions(collision_strategy=limit["collision_strategy"]) if limit else None,
        schedules=[
            DeploymentScheduleCreate(
                schedule=_when(entry, nightly), active=nightly.file is not None, slug=schedule["slug"]
            )
            for schedule in entry.get("schedules", ())
        ],
    )


def _refresh(
    client: SyncPrefectClient, found: DeploymentResponse, owned: dict[str, Any], parameters: Mapping[str, Any]
) -> list[str]:
    """What is ours is made as the file says; parameters only where they were given now."""
    before = found.job_variables or {}
    env = {**before.get("env", {}), **owned["job_variables"]["env"]}
    wanted = {
        **owned,
        "job_variables": {**before, **owned["job_variables"], "env": env},
        "parameters": {**found.parameters, **parameters},
    }
    changed = [name for name, value in wanted.items() if getattr(found, name) != value]
    if changed:
        client.update_deployment(found.id, DeploymentUpdate(**{name: wanted[name] for name in changed}))
    return changed


def _reschedule(
    client: SyncPrefectClient, found: DeploymentResponse, entry: Mapping[str, Any], nightly: Nightly
) -> list[str]:
    if nightly.file is None or "schedules" not in entry:
        return []
    slug, wanted = entry["schedules"][0]["slug"], _when(entry, nightly)
    for schedule in client.read_deployment_schedules(found.id):
        if schedule.slug == slug:
            same = isinstance(schedule.schedule, CronSchedule) and (
                (schedule.schedule.cron, schedule.schedule.timezone) == (wanted.cron, wanted.timezone)
            )
            if same and schedule.active:
                return []
            client.update_deployment_schedule(found.id, schedule.id, active=True, schedule=wanted)
            return ["schedule"]
    client.create_deployment_schedules(found.id, [DeploymentScheduleCreate(schedule=wanted, active=True, slug=slug)])
    return ["schedule"]


def _when(entry: Mapping[str, Any], nightly: Nightly) -> CronSchedule:
    """The doctor looks half an hour before the night begins, so that somebody can still mend something."""
    earlier = DOCTOR_EARLIER_MIN if entry["name"] == "doctor" else 0
    return CronSchedule(cron=daily(clock(nightly.at) - earlier), timezone=zone(nightly.timezone))


def _about(flow: Flow[..., Any]) -> str:
    """The docstring without its `Args:`, which the form shows beside its fields."""
    return (flow.description or "").partition("\nArgs:")[0].strip()
