"""Values: each has a comment and a place in the schema, wrong ones are refused by name, and right ones reach the operator."""

import json
from typing import Any

import pytest
import yaml
from tests.chart.helm import CHART, DEV_STORE, DIGEST, HELMS, MATRIX, SCOPED, STORE, environment, objects, operator_of, render

from nativealign_operator.settings import PREFIX, OperatorSettings, from_environment


def test_every_value_has_a_comment() -> None:
    before = ""
    for line in (CHART / "values.yaml").read_text().splitlines():
        if line.strip() and not line.lstrip().startswith(("#", "-")):
            group = line.rstrip().endswith(":")
            assert group or before.lstrip().startswith("#"), line
        before = line


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    _compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, schema["$defs"], "values")
    assert schema["properties"].keys() - yaml.safe_load((CHART / "values.yaml").read_text()).keys() == {"global", "enabled"}


def _compare(values: Any, schema: dict[str, Any], named: dict[str, Any], path: str) -> None:
    if "$ref" in schema:
        schema = named[schema["$ref"].rpartition("/")[2]]
    if isinstance(values, dict) and "properties" in schema:
        assert schema["additionalProperties"] is False, path
        assert values.keys() <= schema["properties"].keys(), path
        for name, value in values.items():
            _compare(value, schema["properties"][name], named, f"{path}.{name}")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"stor": {}}, "'stor' not allowed"),
    "unknown-inside": ({"operator": {"replica": 3}}, "/operator'"),
    "type": ({"operator": {"replicas": "two"}}, "/operator/replicas'"),
    "bound": ({"operator": {"leaseSeconds": 1}}, "/operator/leaseSeconds'"),
    "namespace": ({"scope": {"namespaces": ["Team A"]}}, "/scope/namespaces/0'"),
    "endpoint": ({"store": {"endpoint": "minio:9000"}}, "/store/endpoint'"),
    "digest": ({"image": {"operator": {"digest": "latest"}}}, "/image/operator/digest'"),
    "tag-in-repository": ({"image": {"workloads": {"repository": "registry.example/workloads:1"}}}, "/image/workloads/repository'"),
    "policy": ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy'"),
    "quantity": ({"operator": {"resources": {"limits": {"memory": "much"}}}}, "/operator/resources/limits/memory'"),
    "label-of-the-selector": (
        {"operator": {"podLabels": {"app.kubernetes.io/name": "mine"}}},
        "/operator/podLabels/app.kubernetes.io~1name'",
    ),
    "toleration": ({"operator": {"tolerations": [{"keyy": "gpu"}]}}, "/operator/tolerations/0'"),
    "service-account": ({"serviceAccount": {"name": "Bad_Name"}}, "/serviceAccount/name'"),
    "scraper": ({"networkPolicy": {"scrapers": [{"namespaceSelecter": {}}]}}, "/networkPolicy/scrapers/0'"),
    "cidr": ({"networkPolicy": {"apiServer": {"cidrs": ["fd00::/64", "10.0.0.0/99"]}}}, "/networkPolicy/apiServer/cidrs/1'"),
    "both-scopes": ({"scope": {"namespaces": ["a"], "excludedNamespaces": ["b"]}}, "/scope/excludedNamespaces'"),
    "endpoint-alone": ({"store": {"endpoint": "https://minio.storage"}}, "store.bucket: needed where store.endpoint is set"),
    "bucket-alone": ({"store": {"bucket": "aligned"}}, "store.endpoint: needed where store.bucket is set"),
    "no-image": ({"devStore": {"enabled": True, "existingSecret": "s3"}}, "devStore.image: needed"),
    "no-secret": ({"devStore": {"enabled": True, "image": "s3:1"}}, "devStore.existingSecret: needed"),
}


@pytest.mark.parametrize("tool", HELMS)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_by_name(tool: str, name: str) -> None:
    values, says = WRONG[name]
    done = render(values, tool=tool)
    assert done.returncode != 0
    assert says in done.stderr


@pytest.mark.parametrize("tool", HELMS)
def test_a_group_that_is_taken_away_is_refused_by_name(tool: str) -> None:
    groups = [name for name, value in yaml.safe_load((CHART / "values.yaml").read_text()).items() if isinstance(value, dict)]
    done = render(dict.fromkeys(groups), tool=tool)
    assert done.returncode != 0
    assert [name for name in groups if f"'{name}'" not in done.stderr] == []


# what the operator gets


@pytest.mark.parametrize("name", MATRIX)
def test_the_operator_reads_every_setting_that_the_chart_gives(name: str) -> None:
    given = environment(objects(MATRIX[name]))
    settings = from_environment(given)
    assert settings.identity == "metadata.name"
    assert settings.namespace == "metadata.namespace"
    assert given.keys() | {f"{PREFIX}STORE"} == {PREFIX + field.upper() for field in OperatorSettings.model_fields}


def test_store_scope_and_images_reach_the_operator() -> None:
    settings = from_environment(environment(objects({"store": STORE, "scope": SCOPED["scope"], **MATRIX["digests"]})))
    assert settings.store is not None
    assert settings.store.model_dump(by_alias=True) == {
        "bucket": "aligned",
        "prefix": "team/one",
        "endpoint": "https://minio.storage:9000",
        "region": "us-east-1",
        "credentialsSecret": {"name": "s3"},
        "caBundle": {"name": "kube-root-ca.crt", "key": "ca.crt"},
    }
    assert settings.watch_namespaces == ("team-a", "team-b")
    assert settings.image == "ghcr.io/nativealign/workloads:gpu"
    operator = operator_of(objects(MATRIX["digests"]))["spec"]["template"]["spec"]
    assert operator["containers"][0]["image"] == f"ghcr.io/nativealign/operator@{DIGEST}"


def test_without_a_bucket_there_is_no_store_and_the_development_store_is_one() -> None:
    assert from_environment(environment(objects({}))).store is None
    store = from_environment(environment(objects({"devStore": DEV_STORE, "store": {"existingSecret": "s3"}}))).store
    assert store is not None
    assert (store.bucket, store.endpoint) == ("nativealign", "http://demo-nativealign-dev-store.system.svc:7070")
