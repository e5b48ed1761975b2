"""Specs generated from the CRDs' schemas, against a real apiserver and a real operator with played pods.

A is a job in which every field is given; B is A with another value in one field. Parts that several fields share are tried once.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests import generated, specs
from tests.cluster.control_plane import ControlPlane
from tests.contract.objects import create, names_field, replace_spec
from tests.control_plane.campaign import PlayedPods, outcome_of, stage, until_finished
from tests.control_plane.site import WAIT_SECONDS, Operator, poll, running_operator

from nativealign_api.kinds import KINDS
from nativealign_api.steps import INSPECT, STEPS
from nativealign_operator.paths import path_of

Json = dict[str, Any]
FIELDS = generated.fields()
LAST = {"AlignJob": "assess", "PretrainJob": "export", "EvalJob": "report"}
"""The step that is not committed yet when an A runs, so that it takes seconds."""
VALUES = 2
"""Tried of each field; the first is the simplest."""
EDITS = 8
"""Times that a job is changed and changed back; each changes some of the fields."""


CLASSES: list[tuple[str, str, Json]] = [
    ("/apis/node.k8s.io/v1/runtimeclasses", "nvidia", {"handler": "nvidia"}),
    ("/apis/scheduling.k8s.io/v1/priorityclasses", "research", {"value": 1}),
]
"""Of the cluster; the full specs name them."""


@dataclass(frozen=True)
class Stage:
    """A control plane, its played pods, and the operator of all namespaces."""

    plane: ControlPlane
    pods: PlayedPods
    operator: Operator

    def team(self) -> str:
        """A namespace with what the full specs name: upstream jobs, a service account; classes are the cluster's."""
        code, made = self.plane.request("POST", "/api/v1/namespaces", {"metadata": {"generateName": "spec-"}})
        namespace = str(made["metadata"]["name"])
        self.plane.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "aligner"}})
        for kind, name in (("AlignJob", "arabic-web"), ("PretrainJob", "aligned"), ("PretrainJob", "raw")):
            code, answer = create(self.plane, namespace, specs.job(kind, specs.SPECS[kind] | {"suspend": True}, name=name))
            assert code == 201, answer
            self.complete(kind, namespace, name)
        return namespace

    def complete(self, kind: str, namespace: str, name: str) -> None:
        """As if the operator had seen it to its end."""
        steps = [{"name": step.name, "state": "Committed", "digest": f"{n:032x}"} for n, step in enumerate(STEPS[kind])]
        ended = [{"type": "Finished", "status": "True", "reason": "StepsCommitted"}]
        status = {"state": "Complete", "steps": steps, "conditions": ended, "startTime": "2026-01-01T00:00:00Z"}
        path = f"{path_of(kind, namespace, name)}/status"
        code, answer = self.plane.request("PATCH", path, {"status": status}, form="application/merge-patch+json")
        assert code == 200, answer

    def get(self, kind: str, namespace: str, name: str = "web") -> Json:
        return dict(self.plane.request("GET", path_of(kind, namespace, name))[1])

    def replace(self, kind: str, namespace: str, spec: Json, *, dry_run: bool = False) -> tuple[int, Any]:
        return replace_spec(self.plane, path_of(kind, namespace, "web"), spec, dry_run=dry_run)

    def seen(self, kind: str, namespace: str, name: str = "web") -> Json:
        """The object once the operator has seen its newest spec."""

        def look() -> Json | None:
            found = self.get(kind, namespace, name)
            return found if found["status"].get("observedGeneration") == found["metadata"]["generation"] else None

        return poll(look, f"look at {kind}/{name}", WAIT_SECONDS, lambda: str(self.get(kind, namespace, name).get("status")), 0.01)


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("specs")) as (plane, s3, pods):
        for path, name, more in CLASSES:
            assert plane.request("POST", path, {"metadata": {"name": name}, **more})[0] == 201
        with running_operator(plane, s3, tmp_path_factory.mktemp("operator")) as operator:
            yield Stage(plane, pods, operator)


@pytest.fixture(autouse=True)
def unharmed(set_up: Stage) -> Iterator[None]:
    """No spec ends the operator, or is a defect to it."""
    yield
    assert set_up.operator.process.exitcode is None
    assert "Traceback" not in set_up.operator.log.read_text()
    assert not set_up.operator.errors()


def drawn(chosen: Callable[[str, str, str], bool]) -> list[tuple[str, str, str, Any]]:
    """Kind, path, class and a value: some for each chosen field. Drawn first and tried once: a cluster is no function to repeat."""
    found: list[tuple[str, str, str, Any]] = []
    strategies = {}
    for kind, leaf, name in filter(lambda field: chosen(*field), FIELDS):
        holder, key = specs.holder_of(specs.with_leaf(kind, leaf), leaf)
        strategies[kind, leaf, name] = generated.taken(generated.schema_of(kind, leaf), holder[key])

    @settings(max_examples=VALUES, phases=[Phase.generate], derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.fixed_dictionaries(strategies))
    def note(values: dict[tuple[str, str, str], Any]) -> None:
        found.extend((*field, value) for field, value in values.items())

    note()
    return found


def other(kind: str, leaf: str, value: Any) -> Json:
    """B: A, or the arm of it that has the field, with a value in the field."""
    return specs.with_value(specs.with_leaf(kind, leaf), leaf, value)


def lines_of(value: Json) -> list[str]:
    """JSON whose differences pytest shows line by line."""
    return json.dumps(value, indent=1, sort_keys=True).splitlines()


def says_why(message: str, leaf: str) -> bool:
    """Whether a refusal names the field by its path; a rule over several fields, the top of it or its name."""
    names = leaf.replace("[]", "").split(".")
    return names_field(message, leaf) or f"spec.{names[0]}" in message or names[-1] in message


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_changed_and_changed_back_ends_as_if_it_had_not_been(kind: str, set_up: Stage) -> None:
    """Every field before the start, every operational one also after it. `suspend` ends an attempt: it has tests of its own."""
    plane, a = set_up.plane, specs.SPECS[kind]
    set_up.pods.committed = {step.name for step in STEPS[kind]} - {INSPECT, LAST[kind]}

    def run(before: Callable[[str], None], after: Callable[[str], None]) -> Json:
        namespace = set_up.team()
        set_up.pods.held = {LAST[kind]}
        code, answer = create(plane, namespace, specs.job(kind, a | {"suspend": True}))
        assert code == 201, answer
        set_up.seen(kind, namespace)
        before(namespace)
        assert set_up.replace(kind, namespace, a)[0] == 200
        poll(
            lambda: set_up.get(kind, namespace)["status"].get("steps", [])[1:],
            "last step",
            WAIT_SECONDS,
            lambda: str(set_up.get(kind, namespace)),
        )
        after(namespace)
        set_up.pods.held = set()
        until_finished(plane, kind, namespace)
        outcome = outcome_of(plane, kind, namespace)
        outcome["status"].pop("observedGeneration")
        for condition in outcome["status"]["conditions"]:
            condition.pop("observedGeneration")
        outcome["status"]["pinned"].pop("upstream")
        return outcome

    def accepted(namespace: str, b: Json, leaf: str, value: Any) -> bool:
        code, answer = set_up.replace(kind, namespace, b, dry_run=True)
        if code == 422 and not says_why(answer["message"], leaf):  # another of the changed fields may be at fault
            code, answer = set_up.replace(kind, namespace, other(kind, leaf, value) | {"suspend": b["suspend"]}, dry_run=True)
            assert code == 200 or says_why(answer["message"], leaf), (leaf, value, answer)
            return False
        return code == 200

    def there_and_back(namespace: str, classes: set[str], suspend: bool) -> None:
        """Changes several fields at once, as far as they are accepted; each B is looked at by the operator."""
        chosen = [(leaf, value) for _, leaf, name, value in values if name in classes]
        for number in range(EDITS):
            b = a | {"suspend": suspend}
            for leaf, value in chosen[number::EDITS]:
                more = specs.with_value(b | specs.ALTERNATIVES.get((kind, leaf), {}), leaf, value)
                b = more if accepted(namespace, more, leaf, value) else b
            assert set_up.replace(kind, namespace, b)[0] == 200
            found = set_up.seen(kind, namespace)
            assert found["status"]["state"] != "Invalid", (b, found["status"]["conditions"])
            assert set_up.replace(kind, namespace, a | {"suspend": suspend})[0] == 200

    values = drawn(lambda of, leaf, name: of == kind and leaf != "suspend")
    edited = run(
        lambda namespace: there_and_back(namespace, {"identity", "operational"}, True),
        lambda namespace: there_and_back(namespace, {"operational"}, False),
    )
    assert lines_of(edited) == lines_of(run(lambda _: None, lambda _: None))


def test_a_spec_that_is_accepted_gets_its_first_child_or_is_told_why_not(set_up: Stage) -> None:
    """The schema cannot say all that a Job must be; what the apiserver refuses then stands in the status. A value of each field."""
    namespace = set_up.team()
    set_up.pods.held = {INSPECT}
    names: dict[tuple[str, str], tuple[str, Any]] = {}
    values = {field[:2]: field[3] for field in drawn(lambda _, leaf, name: name == "operational" and leaf != "suspend")}
    for number, ((kind, leaf), value) in enumerate(values.items()):
        code, answer = create(set_up.plane, namespace, specs.job(kind, other(kind, leaf, value), name=f"web-{number}"))
        assert code == 201 or (code == 422 and says_why(answer["message"], leaf)), (leaf, value, answer)
        if code == 201:
            names[kind, f"web-{number}"] = leaf, value

    def childless() -> list[tuple[str, str]]:
        children = {job["metadata"]["name"] for job in set_up.get("Job", namespace, "")["items"]}
        return [(kind, name) for kind, name in names if f"{KINDS[kind].short}-{name}-inspect-list-0" not in children]

    def refused(kind: str, name: str) -> bool:
        conditions = set_up.get(kind, namespace, name)["status"].get("conditions", [])
        ready = next((c for c in conditions if c["type"] == "Ready"), {"reason": ""})
        return ready["reason"] == "ChildRefused" and "spec" in ready["message"]

    def told() -> str:
        return "\n".join(f"{names[pair]}: {set_up.get(pair[0], namespace, pair[1])['status']}" for pair in childless())

    poll(lambda: all(refused(kind, name) for kind, name in childless()), "child or reason", WAIT_SECONDS, told, pause=2)
