"""A spec of each kind in which every field is given, and ways to change one leaf of it. Used by unit and contract tests."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from nativealign_api.identity import field_classes
from nativealign_api.kinds import KINDS, JobObject
from nativealign_api.vocabulary import API_VERSION

RESOURCES = {
    "nodes": 2,
    "gpusPerNode": 8,
    "gpuResource": "nvidia.com/gpu",
    "processesPerNode": 8,
    "cpu": "32",
    "memory": "512Gi",
    "sharedMemory": "64Gi",
    "extraResources": {"rdma/hca": "1"},
    "networkAnnotations": {"k8s.v1.cni.cncf.io/networks": "rdma-0,rdma-1"},
    "topologyKey": "topology.kubernetes.io/rack",
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Equal", "value": "true", "effect": "NoSchedule"}],
    "nodeSelector": {"pool": "h200"},
    "priorityClassName": "research",
    "runtimeClassName": "nvidia",
    "scratch": {"size": "200Gi", "storageClassName": "fast"},
    "modelCacheClaim": "models",
    "environment": {"NCCL_IB_HCA": "mlx5"},
}
STORE = {
    "bucket": "alignment",
    "prefix": "team",
    "endpoint": "https://minio.storage:9000",
    "region": "eu-central-1",
    "credentialsSecret": {"name": "minio"},
    "caBundle": {"name": "openshift-service-ca.crt", "key": "service-ca.crt"},
}
COMMON = {
    "store": STORE,
    "queueName": "research",
    "suspend": False,
    "parallelism": 4,
    "resources": {**RESOURCES, "gpusPerNode": 0},
    "retries": 5,
    "nodeLostAfterSeconds": 600,
    "deadlines": {"startSeconds": 600, "progressSeconds": 900, "activeSeconds": 86400},
    "image": "registry.example/workloads@sha256:" + "0" * 64,
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccountName": "aligner",
    "ttlSecondsAfterFinished": 3600,
}
TINY = {
    "architecture": "Qwen3",
    "hiddenSize": 64,
    "layers": 3,
    "attentionHeads": 8,
    "vocabularySize": 8192,
    "maxPosition": 8192,
    "seed": 3,
}
CORPUS = {
    "name": "web",
    "uri": "s3://corpora/web/*.jsonl.zst",
    "format": "Jsonl",
    "textField": "body",
    "idField": "url",
    "licenseField": "license",
    "urlField": "address",
    "license": "CC-BY-4.0",
}
OPTIMIZER = {
    "learningRate": 2e-5,
    "schedule": "Constant",
    "warmupPercent": 2.5,
    "minLearningRatePercent": 5,
    "weightDecay": 0.05,
    "beta1": 0.8,
    "beta2": 0.99,
    "gradientClipping": 0.5,
}
DEEPSPEED = {"zeroStage": 3, "precision": "Float32", "microBatch": 2, "activationCheckpointing": True}
ENDPOINT = {
    "model": "gpt-4-turbo",
    "temperature": 0.5,
    "seed": 9,
    "endpoint": "https://llm.internal/v1",
    "apiKeySecret": {"name": "expert", "key": "token"},
    "limits": {"concurrency": 16, "requestsPerMinute": "1k", "tokensPerMinute": "1M"},
    "budget": {
        "requests": "100k",
        "tokens": "400M",
        "usd": "6000",
        "promptUsdPerMillionTokens": 10,
        "completionUsdPerMillionTokens": "30.50",
    },
    "timeoutSeconds": 60,
    "batch": True,
}
SERVED = {name: value for name, value in ENDPOINT.items() if name not in ("temperature", "seed", "budget", "batch")}
VLLM = {"sequences": 64, "precision": "Float32"}
EXPERTS = {
    "transformers": {"uri": "s3://models/expert", "batchSize": 8, "precision": "BFloat16"},
    "vllm": {"uri": "s3://models/expert", **VLLM},
}


def leaves_of(value: Any, path: str = "") -> Iterator[str]:
    """Paths of the leaves of a nested object."""
    if not isinstance(value, dict):
        yield path
        return
    for name, inner in value.items():
        yield from leaves_of(inner, f"{path}.{name}" if path else name)


SPECS: dict[str, dict[str, Any]] = {
    "AlignJob": {
        **COMMON,
        "corpora": [CORPUS],
        "maxQuarantinedPercent": 1,
        "sharding": {"shards": 12, "targetBytes": "512M"},
        "clean": {
            "languages": ["ar", "en"],
            "scripts": ["Arab", "Latn"],
            "minWords": 10,
            "maxWords": 50000,
            "removeBoilerplate": False,
            "repeatedLines": {"minDocuments": 5},
            "repair": {"encoding": False, "presentationForms": False},
            "personalData": {
                "countries": ["SA", "EG"],
                "email": "[email]",
                "phoneNumber": "[phone]",
                "iban": "[account]",
                "nationalId": "[id]",
            },
            "quality": {
                "minAverageWordLength": 3,
                "maxAverageWordLength": 12,
                "minAlphabeticWords": 0.5,
                "minLineEnds": 0.1,
                "maxDuplicateLines": 0.2,
                "maxLinesPerWord": 0.3,
                "maxTopRun": {"first": 0.2, "last": 0.1},
                "maxDuplicateRuns": {"first": 0.2, "last": 0.1},
            },
            "licenses": ["CC-BY-4.0"],
        },
        "decontamination": {
            "benchmarks": ["arabicmmlu", "mmlu-ar"],
            "data": {"uri": "s3://benchmarks/suite/"},
            "items": [{**CORPUS, "name": "exams"}],
            "words": 20,
            "minWords": 9,
        },
        "dedup": {"mode": "Exact", "fuzzy": {"similarity": 0.8, "shingleWords": 4, "bands": 20, "rows": 5, "seed": 7}},
        "heldOut": {"documents": "5k", "maxPercent": 2.5, "seed": 2},
        "codeOfConduct": {"configMap": {"name": "conduct", "key": "ours.yaml"}},
        "seed": {"documents": "96k", "strategy": "HighPerplexity", "perplexityModel": {"uri": "s3://models/kenlm"}, "seed": 1},
        "expert": {"openai": ENDPOINT, "resources": RESOURCES},
        "chunking": {"maxTokens": 200, "contextTokens": 32},
        "worker": {
            "base": {"uri": "s3://models/Qwen1.5-4B-Chat"},
            "train": {
                "epochs": 3,
                "globalBatch": 64,
                "sequenceLength": 1024,
                "maxIdentityPercent": 20,
                "lora": {"rank": 8, "alpha": 16},
                "heldOutPercent": 5,
                "evaluateEverySteps": 10,
                "patience": 3,
                "seed": 4,
                "optimizer": OPTIMIZER,
                "deepspeed": DEEPSPEED,
                "checkpointEverySteps": 100,
            },
            "resources": RESOURCES,
        },
        "rewrite": {
            "transformers": {"batchSize": 8, "precision": "BFloat16"},
            "maxOutputRatio": 2,
            "maxRetries": 2,
            "chunksPerShard": 3000,
            "parallelism": 16,
            "resources": RESOURCES,
        },
        "assess": {
            "documents": "2k",
            "perplexityModel": {"uri": "s3://models/gpt2"},
            "toxicityModel": {"uri": "s3://models/detoxify", "toxicLabels": ["toxic"]},
            "judge": {**ENDPOINT, "apiKeySecret": {"name": "judge", "key": "token"}, "structuredOutputs": True},
            "seed": 8,
            "resources": RESOURCES,
        },
        "gates": {
            "maxFallbackPercent": 10,
            "maxDroppedPercent": 5,
            "minNumberPreservationPercent": 97,
            "minNamePreservationPercent": 95,
            "maxToxicityPercent": 3,
            "minJudgeScore": 6.5,
        },
    },
    "PretrainJob": {
        **COMMON,
        "base": {"fromConfig": TINY},
        "objective": "CausalLM",
        "mix": [
            {
                "alignJob": "arabic-web",
                "view": "Cleaned",
                "acceptFailedGate": True,
                "weight": 0.5,
                "maxTokens": "10B",
                "maxEpochs": 2,
            },
            {"corpus": CORPUS, "weight": 0.5},
        ],
        "whenExhausted": "Renormalise",
        "sharding": {"shards": 6, "targetBytes": "128M"},
        "maxQuarantinedPercent": 2,
        "sequenceLength": 2048,
        "tokens": "20B",
        "globalBatch": 256,
        "seed": 5,
        "optimizer": OPTIMIZER,
        "deepspeed": DEEPSPEED,
        "checkpoints": {"everySteps": 100, "keep": 5},
        "trainResources": RESOURCES,
    },
    "EvalJob": {
        **COMMON,
        "model": {"pretrainJob": "aligned", "acceptFailedGate": True},
        "baseline": {"uri": "s3://models/raw", "acceptFailedGate": True},
        "data": {"uri": "s3://benchmarks/2026"},
        "benchmarks": [
            {
                "name": "acva-clean",
                "fewShot": 3,
                "data": {"uri": "s3://benchmarks/acva"},
                "idList": "s3://benchmarks/acva-clean-ids.txt",
            },
            {"name": "ar-beavertails"},
        ],
        "heldOut": {"alignJob": "arabic-web", "documents": 500, "acceptFailedGate": True},
        "engine": {"batchSize": 4, "precision": "BFloat16"},
        "judge": {**ENDPOINT, "structuredOutputs": True},
        "gate": {"nonInferior": {"marginPoints": 1.5, "confidence": 0.9}},
        "evaluateResources": RESOURCES,
    },
}

ALTERNATIVES: dict[tuple[str, str], dict[str, Any]] = (
    {
        ("AlignJob", "codeOfConduct.builtin"): {"codeOfConduct": {"builtin": "ar-1"}},
        ("AlignJob", "codeOfConduct.inline"): {"codeOfConduct": {"inline": "name: ours"}},
        ("AlignJob", "expert.rules"): {"expert": {"rules": {}}},
        ("AlignJob", "rewrite.vllm.sequences"): {"rewrite": {"vllm": VLLM}},
        ("AlignJob", "rewrite.vllm.precision"): {"rewrite": {"vllm": VLLM}},
        ("PretrainJob", "base.uri"): {"base": {"uri": "s3://models/Meta-Llama-3-8B"}},
        ("EvalJob", "model.uri"): {"model": {"uri": "s3://models/aligned"}},
        ("EvalJob", "baseline.pretrainJob"): {"baseline": {"pretrainJob": "raw"}},
    }
    | {
        ("AlignJob", f"worker.base.fromConfig.{name}"): {
            "worker": {**SPECS["AlignJob"]["worker"], "base": {"fromConfig": {**TINY, name: TINY[name]}}}
        }
        for name in TINY
    }
    | {("AlignJob", f"rewrite.openai.{name}"): {"rewrite": {"openai": SERVED}} for name in leaves_of(SERVED)}
    | {
        ("AlignJob", f"expert.{engine}.{name}"): {"expert": {engine: EXPERTS[engine]}}
        for engine in EXPERTS
        for name in EXPERTS[engine]
    }
)
"""Leaves that lie in the other arm of a choice: the fields to replace so that the spec has them."""

CHANGES: dict[str, Any] = {
    "Jsonl": "Parquet",
    "Arab": "Hebr",
    "Latn": "Cyrl",
    "Constant": "Cosine",
    "Float32": "BFloat16",
    "BFloat16": "Float32",
    "Exact": "Fuzzy",
    "HighPerplexity": "LowPerplexity",
    "Renormalise": "Fail",
    "Cleaned": "Raw",
    "Qwen3": "Llama",
    "Equal": "Exists",
    "NoSchedule": "NoExecute",
    "acva-clean": "exams-ar",
    "arabicmmlu": "aratrust",
    "mmlu-ar": "mmlu",
    "ar": "en",
    "en": "fr",
    "SA": "AE",
    "EG": "MA",
}
SINGLE_CHOICE = {"objective", "codeOfConduct.builtin"}
"""Enumerations with one value: nothing to change."""


def job(kind: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """A manifest."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "web", **metadata}, "spec": copy.deepcopy(spec)}


def parse(kind: str, spec: dict[str, Any]) -> JobObject:
    return KINDS[kind].model.model_validate(job(kind, spec, uid="0c1f5a2e-1111-4000-8000-000000000001"))


def leaves(kind: str) -> Iterator[tuple[str, str]]:
    """Path and class of every leaf that has more than one value."""
    for path, name in field_classes(KINDS[kind].spec).items():
        if path not in SINGLE_CHOICE:
            yield path, name


def with_leaf(kind: str, path: str) -> dict[str, Any]:
    """A full spec that holds the leaf."""
    return copy.deepcopy(SPECS[kind] | ALTERNATIVES.get((kind, path), {}))


def with_value(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with a value in a field, as far as the spec has the field."""
    changed = copy.deepcopy(spec)
    with contextlib.suppress(KeyError, StopIteration):
        holder, name = holder_of(changed, path)
        holder[name] = value
    return changed


def changed(kind: str, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A full spec and the same with another valid value at one leaf; in lists the first item that has the leaf is changed."""
    before = with_leaf(kind, path)
    after = copy.deepcopy(before)
    holder, name = holder_of(after, path)
    if path == "expert.rules":  # an empty object; the other value is the other arm
        return before, copy.deepcopy(SPECS[kind])
    holder[name] = _other(holder[name])
    return before, after


def holder_of(spec: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The object that holds a leaf, and the leaf's name in it."""
    *way, name = path.split(".")
    here: Any = spec
    for part in way:
        if part.endswith("[]"):
            rest = path.split(f"{part}.", 1)[1].split(".")[0].removesuffix("[]")
            here = next(item for item in here[part.removesuffix("[]")] if rest in item)
        else:
            here = here[part]
    return here, name


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value // 2 if value and value % 2 == 0 else abs(value - 1) or 2
    if isinstance(value, float):
        return round(value * 0.9, 9)
    if isinstance(value, list):
        return [_other(item) for item in value]
    if isinstance(value, dict):
        return {key: _other(item) for key, item in value.items()}
    return CHANGES.get(value) or _other_text(value)


def _other_text(value: str) -> str:
    if value[0].isdigit():
        return "2" + value
    return value[:-1] + ("x" if value[-1] != "x" else "y")
