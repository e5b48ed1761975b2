"""What the operator says of itself at `/metrics` (Prometheus). Names are the public interface of dashboards and alerts."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nativealign_api.kinds import KINDS
from nativealign_api.status import JobStatus
from nativealign_operator.cache import Key

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "nativealign_reconcile_seconds", "Time of one reconcile, in seconds.", ["kind"], buckets=BUCKETS, registry=registry
        )
        self.errors = Counter("nativealign_reconcile_errors", "Reconciles that failed.", ["kind"], registry=registry)
        for kind in KINDS:  # a counter that begins with its first error has no increase by it
            self.errors.labels(kind)
        self.queue = Gauge("nativealign_queue_depth", "Jobs that are due and wait for a worker.", registry=registry)
        self.leader = Gauge("nativealign_leader", "1 where this replica holds the Lease.", registry=registry)
        self.restarts = Counter("nativealign_watch_restarts", "Times that the watches were started again.", registry=registry)
        self._jobs = Gauge("nativealign_jobs", "Objects by kind and state.", ["kind", "state"], registry=registry)
        self._steps = Counter("nativealign_steps_committed", "Steps committed.", ["kind", "step"], registry=registry)
        self._counts = Counter("nativealign_documents", "Documents of steps by outcome.", ["step", "outcome"], registry=registry)
        self._tokens = Counter("nativealign_tokens", "Tokens of committed tokenize steps.", registry=registry)
        self._known: dict[Key, tuple[str, frozenset[str]]] = {}

    def count(self, key: Key, status: JobStatus) -> None:
        """Notes a job's state, and the steps that are newly committed."""
        state, committed = self._known.get(key, ("", None))
        now = frozenset(step.name for step in status.steps if step.state == "Committed")
        if state != status.state:
            self._move(key, state, status.state)
        for step in status.steps if committed is not None else []:
            if step.name in now - (committed or frozenset()) and not step.reused:
                self._steps.labels(key.kind, step.name).inc()
                self._count_step(step.name, step.counts)
        self._known[key] = (status.state, now)

    def forget(self, key: Key) -> None:
        """The job is gone."""
        state, _ = self._known.pop(key, ("", None))
        self._move(key, state, "")

    def keep_only(self, keys: Iterable[Key]) -> None:
        """Others were deleted while nobody watched."""
        for key in self._known.keys() - set(keys):
            self.forget(key)

    def clear(self) -> None:
        """This replica leads no more: the jobs are another's to count."""
        self._known.clear()
        self._jobs.clear()
        self.queue.set(0)
        self.leader.set(0)

    def _count_step(self, step: str, counts: dict[str, int]) -> None:
        if step in ("clean", "dedup"):
            for outcome, number in counts.items():
                self._counts.labels(step, outcome).inc(number)
        if step == "tokenize":
            self._tokens.inc(counts.get("tokens", 0))

    def _move(self, key: Key, before: str, after: str) -> None:
        if before:
            self._jobs.labels(key.kind, before).dec()
        if after:
            self._jobs.labels(key.kind, after).inc()
