"""Parts that more than one kind uses: references, storage, resources, models, corpora, engines, training, job control."""

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from nativealign_api.base import Count, Dollars, Endpoint, Model, Name, ObjectName, Operational, Percent, Rule, Uri

Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=32)]
"""A Kubernetes resource quantity: 500m, 8, 64Gi."""
Bytes = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=32)]
"""A quantity of memory or disk: 64Gi, 500M. No thousandths of a byte, which `m` would be."""

ENVIRONMENT_PATTERN = r"^(NCCL_|UCX_|FI_|GLOO_|TORCH_NCCL_)[A-Z0-9_]+$|^(HTTP_PROXY|HTTPS_PROXY|NO_PROXY)$"


class SecretReference(Model):
    """A Secret in the job's own namespace."""

    name: ObjectName
    """Name of the Secret."""


class SecretKeyReference(SecretReference):
    """One key of a Secret in the job's own namespace."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Key inside the Secret."""


class ConfigMapKeyReference(Model):
    """One key of a ConfigMap in the job's own namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Key inside the ConfigMap."""


class Store(Model):
    """The object store that all steps share. Without it the installation's default, on a laptop a folder, is used."""

    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    """Bucket for everything that the steps write."""
    prefix: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?$", max_length=256)] = ""
    """Key prefix inside the bucket, without slashes at its ends."""
    endpoint: Endpoint
    """URL of the S3 service, e.g. https://minio.storage:9000."""
    region: Annotated[str, StringConstraints(max_length=64)] = "us-east-1"
    """Region that requests are signed for."""
    credentials_secret: SecretReference | None = None
    """Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; on a laptop the environment."""
    ca_bundle: ConfigMapKeyReference | None = None
    """PEM certificates to trust for the endpoint."""


class Toleration(Model):
    """As in a pod's spec."""

    key: str | None = None
    """Taint key; empty matches every key with operator Exists."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: str | None = None
    """Taint value for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; empty matches all."""


class Scratch(Model):
    """Local disk of a pod."""

    size: Bytes = "20Gi"
    """Size limit."""
    storage_class_name: ObjectName | None = None
    """Storage class of an ephemeral volume claim; without it the node's own disk (emptyDir)."""


class Resources(Model):
    """What each pod of a step gets, and where it may run."""

    nodes: Annotated[int, Field(ge=1, le=4096)] = 1
    """Pods of a gang step (train, train-worker), one per node. A training that has a checkpoint needs the same number."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    """Accelerators for each pod; 0 runs on the CPU."""
    gpu_resource: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=128)] = "nvidia.com/gpu"
    """Extended resource that the accelerators are asked for by: nvidia.com/gpu, amd.com/gpu, nvidia.com/mig-1g.10gb."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Training processes in each pod; default one for each accelerator, or one on the CPU. As `nodes`, fixed by a checkpoint."""
    cpu: Quantity | None = None
    """CPU request."""
    memory: Bytes | None = None
    """Memory request and limit."""
    shared_memory: Bytes | None = None
    """Size of /dev/shm, in memory; with several accelerators or nodes as much as the pod may use by default."""
    extra_resources: dict[str, Quantity] = Field(default={}, max_length=8)
    """Further extended resources for each pod, e.g. rdma/hca: "1"."""
    network_annotations: dict[str, Annotated[str, StringConstraints(max_length=512)]] = Field(default={}, max_length=4)
    """Pod annotations that attach secondary networks (keys of k8s.v1.cni.cncf.io only)."""
    topology_key: Annotated[str, StringConstraints(max_length=128)] | None = None
    """Node label; the pods of a gang step share one value of it (rack, block)."""
    tolerations: list[Toleration] = Field(default=[], max_length=16)
    """Taints that the pods tolerate."""
    node_selector: dict[str, str] = Field(default={}, max_length=16)
    """Labels that a node must have."""
    priority_class_name: ObjectName | None = None
    """Priority class of the pods."""
    runtime_class_name: ObjectName | None = None
    """Runtime class of the pods."""
    scratch: Scratch = Scratch()
    """Local disk."""
    model_cache_claim: ObjectName | None = None
    """Persistent volume claim where models are kept between pods."""
    environment: dict[str, Annotated[str, StringConstraints(max_length=512)]] = Field(default={}, max_length=32)
    """Variables for the collective libraries and proxies: NCCL_*, TORCH_NCCL_*, UCX_*, FI_*, GLOO_*, HTTP(S)_PROXY, NO_PROXY."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule(f"!has(self.environment) || self.environment.all(k, k.matches('{ENVIRONMENT_PATTERN}'))",
             "environment takes NCCL_*, TORCH_NCCL_*, UCX_*, FI_*, GLOO_* and proxy variables only"),
        Rule("!has(self.networkAnnotations) || self.networkAnnotations.all(k, k.startsWith('k8s.v1.cni.cncf.io/'))",
             "networkAnnotations takes keys of k8s.v1.cni.cncf.io only"),
    )  # fmt: skip

    def problems(self) -> Iterator[str]:
        if not all(re.search(ENVIRONMENT_PATTERN, key) for key in self.environment):
            yield self.cel_rules[0].message
        if not all(key.startswith("k8s.v1.cni.cncf.io/") for key in self.network_annotations):
            yield self.cel_rules[1].message

    @property
    def world_size(self) -> int:
        """Training processes over all nodes."""
        return self.nodes * (self.processes_per_node or max(1, self.gpus_per_node))


class TinyModel(Model):
    """A model made on the spot: random weights from a configuration, a byte-level BPE tokenizer trained on the job's own corpus.

    For quickstarts and tests; nobody should expect language from it.
    """

    architecture: Literal["Llama", "Qwen3"] = "Llama"
    """Transformer architecture, by its name in transformers."""
    hidden_size: Annotated[int, Field(ge=16, le=8192, multiple_of=8)] = 128
    """Width."""
    layers: Annotated[int, Field(ge=1, le=128)] = 2
    """Number of blocks."""
    attention_heads: Annotated[int, Field(ge=1, le=128)] = 4
    """Attention heads; each gets an even part of hiddenSize."""
    vocabulary_size: Annotated[int, Field(ge=300, le=262144)] = 4096
    """Entries of the tokenizer, special ones included."""
    max_position: Annotated[int, Field(ge=64, le=131072)] = 2048
    """Longest sequence, in tokens."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of the weights."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.hiddenSize % (2 * self.attentionHeads) == 0", "hiddenSize must be a multiple of twice attentionHeads"),
    )

    def problems(self) -> Iterator[str]:
        if self.hidden_size % (2 * self.attention_heads):
            yield self.cel_rules[0].message


class BaseModelSource(Model):
    """Where a model comes from."""

    uri: Uri | None = None
    """Folder with a Hugging Face model: config.json, tokenizer and *.safetensors."""
    from_config: TinyModel | None = None
    """A model made on the spot."""

    one_of: ClassVar[tuple[str, ...]] = ("uri", "fromConfig")


class ModelFolder(Model):
    """A Hugging Face model in a folder."""

    uri: Uri
    """Folder with config.json, tokenizer and *.safetensors."""


License = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Corpus(Model):
    """A set of files with one text in each record."""

    name: Name
    """Name in ids, counts and reports; unique in the job."""
    uri: Uri
    """Files: a pattern such as s3://corpora/web/*.jsonl.zst, or a folder (all files below it)."""
    format: Literal["Auto", "Jsonl", "Parquet", "Arrow", "Text", "Warc"] = "Auto"
    """File format; Auto goes by the name: .jsonl, .json, .txt, .warc, .wet, also with .gz or .zst, and .parquet, .arrow.

    Text is one document per line. Arrow is the streaming format that `datasets` saves. Of Warc the plain texts are read, as WET
    files have them, and the fields are headers such as WARC-Target-URI.
    """
    text_field: Annotated[str, StringConstraints(min_length=1, max_length=128)] = "text"
    """Field or column that holds the text."""
    id_field: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    """Field or column with the user's own id; kept as an attribute."""
    license: License | None = None
    """Licence of the documents (SPDX identifier), recorded with each and in the report."""
    license_field: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    """Field or column with a document's own licence, which goes before the corpus'."""
    url_field: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    """Field or column with a document's address, recorded with it; the host is its site."""


PublishedBenchmark = Literal["arabicmmlu", "exams-ar", "acva-all", "aratrust", "mmlu", "mmlu-ar", "ar-beavertails"]


class BenchmarkData(Model):
    """Where the benchmarks' files lie, in the layout that their authors publish."""

    uri: Uri
    """Folder."""


class Sharding(Model):
    """How the input is cut. It names the parts that a digest holds, so it is fixed once a job has started."""

    shards: Annotated[int, Field(ge=1, le=10000)] | None = None
    """Number of shards; default: input bytes over targetBytes, rounded up."""
    target_bytes: Annotated[Count, Field(ge=1_000_000, le=10**12)] = 256_000_000
    """Compressed input bytes for each shard, where shards is not given."""


class RateLimits(Model):
    """What an endpoint may be asked for."""

    concurrency: Annotated[int, Field(ge=1, le=4096)] = 8
    """Requests in flight. An eighth more than a server's slots keeps them all in use."""
    requests_per_minute: Annotated[Count, Field(ge=1)] | None = None
    """Limit of requests in any minute."""
    tokens_per_minute: Annotated[Count, Field(ge=1)] | None = None
    """Limit of prompt and completion tokens in any minute."""


class Budget(Model):
    """Hard limits of what an endpoint may cost. Reaching one stops the step; raising it goes on where it stopped."""

    requests: Annotated[Count, Field(ge=1)] | None = None
    """Requests in all."""
    tokens: Annotated[Count, Field(ge=1)] | None = None
    """Prompt and completion tokens in all."""
    usd: Annotated[Dollars, Field(gt=0)] | None = None
    """Money in all, in US dollars; needs prices. What an answer may cost at most is set aside before it is asked for."""
    prompt_usd_per_million_tokens: Annotated[Dollars, Field(ge=0)] | None = None
    """Price of a million prompt tokens, in US dollars."""
    completion_usd_per_million_tokens: Annotated[Dollars, Field(ge=0)] | None = None
    """Price of a million completion tokens, in US dollars."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.usd) || (has(self.promptUsdPerMillionTokens) && has(self.completionUsdPerMillionTokens))",
             "usd needs promptUsdPerMillionTokens and completionUsdPerMillionTokens"),
    )  # fmt: skip

    def problems(self) -> Iterator[str]:
        prices = (self.prompt_usd_per_million_tokens, self.completion_usd_per_million_tokens)
        if self.usd is not None and None in prices:
            yield self.cel_rules[0].message


class ServedModel(Model):
    """A model on any server of the OpenAI chat completions protocol (OpenAI, vLLM, SGLang, llama.cpp)."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    """Model name as the server knows it."""
    endpoint: Annotated[Endpoint, Operational]
    """Base URL, ending in /v1 as a rule."""
    api_key_secret: Annotated[SecretKeyReference | None, Operational] = None
    """API key; on a laptop the environment variable OPENAI_API_KEY."""
    limits: Annotated[RateLimits, Operational] = RateLimits()
    """Rate limits."""
    timeout_seconds: Annotated[int, Operational, Field(ge=1, le=3600)] = 120
    """Longest wait for one answer, in seconds."""


class OpenAIEngine(ServedModel):
    """A model on any server of the OpenAI chat completions protocol, with what its answers may cost."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sampling temperature; higher where an answer is asked for again."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Sampling seed, where the server honours one."""
    budget: Annotated[Budget, Operational] = Budget()
    """Budget."""
    batch: Annotated[bool, Operational] = False
    """Asks through the endpoint's Batch API: answers come within a day and cost less; limits does not apply."""


class Judge(OpenAIEngine):
    """A model that scores texts from 1 to 10."""

    structured_outputs: bool = False
    """Has the server hold the answers to a JSON schema, if it can (response_format): then none is unusable."""


class RulesEngine(Model):
    """The offline expert: deterministic rules of typography, layout, advertisements and contact data."""


class TransformersEngine(Model):
    """Generation in process with transformers, on CPU or GPU, greedy."""

    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Sequences in one batch. It may change low bits of the logits, so it is part of what is computed."""
    precision: Literal["Float32", "BFloat16"] = "Float32"
    """Number format of the weights."""


class VllmEngine(Model):
    """Generation in process with vLLM, on GPU, greedy. The pod's accelerators share one model."""

    sequences: Annotated[int, Field(ge=1, le=4096)] = 256
    """Sequences at the same time, at most."""
    precision: Literal["Float32", "BFloat16"] = "BFloat16"
    """Number format of the weights."""


class Optimizer(Model):
    """AdamW and its learning rate."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Highest learning rate."""
    schedule: Literal["Cosine", "Constant", "WarmupStableDecay"] = "Cosine"
    """How the rate falls after the warm-up."""
    warmup_percent: Percent = 1.0
    """Part of all steps in which the rate rises from zero, in percent."""
    min_learning_rate_percent: Percent = 10.0
    """Where the rate ends, in percent of learningRate."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Decoupled weight decay."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the second moment."""
    gradient_clipping: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Largest norm of the gradient."""


class DeepSpeed(Model):
    """Settings of DeepSpeed."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """What ZeRO partitions over the processes: 0 nothing, 1 optimizer state, 2 and gradients, 3 and parameters."""
    precision: Literal["Float32", "BFloat16"] = "BFloat16"
    """Number format of weights and activations; the optimizer keeps 32 bits."""
    micro_batch: Annotated[int | None, Operational, Field(ge=1, le=1024)] = None
    """Sequences in one forward pass of one process; default: what divides globalBatch, at most 8."""
    activation_checkpointing: Annotated[bool, Operational] = False
    """Recompute activations in the backward pass instead of keeping them."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.zeroStage) || self.zeroStage > 0 || (has(self.precision) && self.precision == 'Float32')",
             "precision BFloat16 needs zeroStage 1 or more, whose optimizer keeps 32 bits"),
    )  # fmt: skip

    def problems(self) -> Iterator[str]:
        if self.zero_stage == 0 and self.precision == "BFloat16":
            yield self.cel_rules[0].message


class Checkpoints(Model):
    """When training saves, and how much is kept."""

    every_steps: Annotated[int, Field(ge=1, le=10**6)] = 500
    """Steps between two checkpoints."""
    keep: Annotated[int, Field(ge=1, le=100)] = 3
    """Newest checkpoints to keep."""


class Deadlines(Model):
    """How long a step may take. Each counts for one attempt."""

    start_seconds: Annotated[int, Field(ge=10, le=2_592_000)] = 3600
    """Until a pod of a phase runs, and of a gang all; in seconds. Beyond it the job is stalled, and goes on when they run."""
    progress_seconds: Annotated[int, Field(ge=10, le=2_592_000)] = 3600
    """Without any sign of life from the pods that can be reached, in seconds. Beyond it the attempt has failed."""
    active_seconds: Annotated[int, Field(ge=10, le=31_536_000)] | None = None
    """In all, in seconds."""


class JobSpec(Model):
    """Fields that the three kinds share; all say how, none says what."""

    store: Annotated[Store | None, Operational] = None
    """Where everything is written; default: the installation's store, on a laptop a folder."""
    queue_name: Annotated[Name | None, Operational] = None
    """Kueue LocalQueue for the Jobs of every step."""
    suspend: Annotated[bool, Operational] = False
    """Stop the pods and keep all results; taking it back goes on from there."""
    parallelism: Annotated[int, Operational, Field(ge=1, le=10000)] = 2
    """Pods (on a laptop processes) of a sharded step at the same time."""
    resources: Annotated[Resources, Operational] = Resources()
    """For every step that has none of its own."""
    retries: Annotated[int, Operational, Field(ge=0, le=100)] = 3
    """Further attempts for each shard (gang steps: for each step) after a failure that may pass."""
    node_lost_after_seconds: Annotated[int, Operational, Field(ge=10, le=86400)] = 300
    """When the pods of a node are given up that Kubernetes finds unreachable, in seconds since then."""
    deadlines: Annotated[Deadlines, Operational] = Deadlines()
    """Time limits."""
    image: Annotated[str | None, Operational, StringConstraints(max_length=512)] = None
    """Workload image; default: the installation's."""
    image_pull_secrets: Annotated[list[SecretReference], Operational, Field(max_length=8)] = []
    """Secrets to pull the image with."""
    service_account_name: Annotated[ObjectName | None, Operational] = None
    """Service account of the pods, for workload identity: the store's keys for its token, by a role of AWS or by the store itself.
    Without it no token is mounted."""
    ttl_seconds_after_finished: Annotated[int | None, Operational, Field(ge=0, le=31_536_000)] = None
    """When the finished Jobs and pods are removed, in seconds; the object itself stays."""
