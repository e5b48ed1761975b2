"""The table of situations: what each state of a job means in conditions. Pure.

| state | Ready | Stalled | others True |
|---|---|---|---|
| Waiting, Queued, Running, Retrying | True | False | Running while pods run |
| Suspended | True | False | Suspended |
| Complete | True | False | Complete, Finished |
| Failed, GateFailed | False | True | Failed, Finished |
| Invalid, Stalled | False | True | |

Read by kstatus (Ready, Stalled, observedGeneration), by `kubectl wait`, and by Argo CD's Lua in the chart.
"""

from datetime import datetime

from nativealign_api.status import ConditionStatus, JobStatus
from nativealign_api.vocabulary import Condition

ENDED = {
    "Complete": (Condition.COMPLETE, Condition.FINISHED),
    "Failed": (Condition.FAILED, Condition.FINISHED),
    "GateFailed": (Condition.FAILED, Condition.FINISHED),
}
ALWAYS = (Condition.READY, Condition.STALLED, Condition.RUNNING)
"""Conditions that are told also where they are False and never were True."""
UNWELL = {"Failed", "GateFailed", "Invalid", "Stalled"}
REASON_LIMIT, MESSAGE_LIMIT = 1024, 4096


def finished(status: JobStatus) -> bool:
    """Whether the job has ended. What has ended stays so."""
    return any(c.type == Condition.FINISHED and c.status == "True" for c in status.conditions)


def say(status: JobStatus, state: str, reason: str, message: str, now: datetime, *, pods_run: bool = False) -> None:
    """Puts a state into a status: summary and conditions. A time of transition moves only when its condition does."""
    status.state = state
    truths = {
        Condition.READY: state not in UNWELL,
        Condition.STALLED: state in UNWELL,
        Condition.RUNNING: pods_run,
        Condition.SUSPENDED: state == "Suspended",
    }
    truths |= dict.fromkeys(ENDED.get(state, ()), True)
    before = {condition.type: condition for condition in status.conditions}
    told = [
        _condition(before.get(kind), kind, truth, reason, message[:MESSAGE_LIMIT], now, status.observed_generation)
        for kind, truth in truths.items()
        if truth or kind in before or kind in ALWAYS
    ]
    kept = [condition for condition in status.conditions if condition.type not in truths]
    status.conditions = told + kept


def _condition(
    before: ConditionStatus | None, kind: str, truth: bool, reason: str, message: str, now: datetime, generation: int | None
) -> ConditionStatus:
    status = "True" if truth else "False"
    same = before is not None and before.status == status
    return ConditionStatus(
        type=kind,
        status=status,
        reason=reason[:REASON_LIMIT],
        message=message,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before and same else stamp(now),
    )


def stamp(now: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
