"""The automations that come with overnight: crashed runs are marked, and what somebody should hear of is told."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

# Prefect advises three beats; with its API away for a minute, that made a living run Crashed (measured at load 19)
SILENCE_S = 150.0
# only runs of our deployments: those of others on the same server may beat more slowly, or not at all
_OURS = ResourceSpecification({"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.overnight"})
_RUNS = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
_FINISHED = (
    "{{ event.payload['words'] }}\n"
    "{% for each in event.payload['failed'] %}{{ each['task'] }}: {{ each['cause'] }}\n{% endfor %}"
    "{% for each in event.payload['undelivered'] %}not delivered: {{ each }}\n{% endfor %}"
    "{{ event.payload['report'] }}"
)
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")


def crashed_runs(silence_s: float = SILENCE_S) -> AutomationCore:
    """A flow run whose process was killed stays Running for ever; after so long without a heartbeat it is Crashed.

    Flow runs beat every 30 s; one may be killed before its first beat. Paused ones are left alone.
    """
    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name="overnight: crashed runs",
        description="Marks a flow run Crashed when its process was killed. Press Retry, or start it again with resume.",
        trigger=EventTrigger(
            after={"prefect.flow-run.Running", beat},
            expect={beat, *(f"prefect.flow-run.{end}" for end in _ENDS)},
            match=_RUNS,
            match_related=_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence_s),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no sign of life for {silence_s:.0f} s: its process was killed or its machine went down; "
                "nothing is lost: press Retry, or start it again with resume",
            )
        ],
    )


def notifications(block: UUID) -> list[AutomationCore]:
    """Everything that is told through one notification block."""
    return [
        tell_me(block),
        _told(
            block,
            "nothing started",
            "Sends a notification when every route of a batch was shut, so that no agent was started.",
            "overnight.batch.finished",
            {"prefect.resource.id": "overnight.batch.*", "overnight.exit-code": "3"},
            "{{ event.resource['prefect.resource.name'] }}: nothing started",
            _FINISHED,
        ),
        _told(
            block,
            "route shut",
            "Sends a notification when a route was shut for the rest of a batch.",
            "overnight.route.shut",
            {"prefect.resource.id": "overnight.route.*"},
            "{{ event.resource['prefect.resource.name'] }} is shut in batch {{ event.resource['overnight.batch'] }}",
            "{{ event.payload['cause'] }}\nmend: {{ event.payload['remedy'] }}",
        ),
        _told(
            block,
            "breaker opened",
            "Sends a notification when nothing starts on a route, or with a provider, for a while.",
            "overnight.breaker.opened",
            {"prefect.resource.id": "overnight.breaker.*"},
            "nothing starts on {{ event.resource['prefect.resource.name'] }} for now",
            "{{ event.payload['cause'] }}\n"
            "{% if event.payload['until'] %}until {{ event.payload['until'] }}\n{% endif %}"
            "mend: {{ event.payload['remedy'] }}",
        ),
        tell_me_of_crashes(block),
    ]


def tell_me(block: UUID) -> AutomationCore:
    """A batch that ended, in whatever way; one that could start nothing is told apart."""
    return _told(
        block,
        "tell me",
        "Sends a notification when a batch has finished: its tasks, what failed and why, where the report is.",
        "overnight.batch.finished",
        {"prefect.resource.id": "overnight.batch.*", "overnight.exit-code": "!3"},
        "{{ event.resource['prefect.resource.name'] }}: {{ event.resource['overnight.state'] }}",
        _FINISHED,
    )


def _told(
    block: UUID, name: str, description: str, event: str, match: dict[str, str], subject: str, body: str
) -> AutomationCore:
    return AutomationCore(
        name=f"overnight: {name}",
        description=description,
        trigger=EventTrigger(expect={event}, match=ResourceSpecification(match), posture=Posture.Reactive, threshold=1),
        actions=[SendNotification(block_document_id=block, subject=f"overnight: {subject}", body=body)],
    )


def tell_me_of_crashes(block: UUID) -> AutomationCore:
    """A flow run that crashed cannot say so itself."""
    return AutomationCore(
        name="overnight: tell me of crashes",
        description="Sends a notification when a flow run of overnight crashed.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Crashed"},
            match=_RUNS,
            match_related=_OURS,
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="overnight: {{ flow_run.name }} crashed",
                body="{{ flow_run.state.message }}",
            )
        ],
    )


def automate(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    """Create it, or make it as we want it; whether it is switched on stays as the user left it."""
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return f"automation {wanted.name}: created"
    kept = wanted.model_copy(update={"enabled": found[0].enabled})
    if AutomationCore.model_validate(found[0].model_dump()) == kept:
        return f"automation {wanted.name}: unchanged"
    # what was not set is not sent, and the API wants all but this (prefect 3.8.8)
    client.update_automation(found[0].id, AutomationCore.model_validate(kept.model_dump(exclude={"owner_resource"})))
    return f"automation {wanted.name}: updated"
