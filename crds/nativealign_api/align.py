"""AlignJob: from a web corpus to an aligned corpus and the worker that aligned it (arXiv 2412.03253, section 3)."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from nativealign_api.base import Count, Model, Operational, Percent, Rule
from nativealign_api.common import (
    BaseModelSource,
    BenchmarkData,
    ConfigMapKeyReference,
    Corpus,
    DeepSpeed,
    JobSpec,
    Judge,
    License,
    ModelFolder,
    OpenAIEngine,
    Optimizer,
    PublishedBenchmark,
    Resources,
    RulesEngine,
    ServedModel,
    Sharding,
    TransformersEngine,
    VllmEngine,
)

Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]
Script = Literal[
    "Arab", "Armn", "Beng", "Cyrl", "Deva", "Ethi", "Geor", "Grek", "Gujr", "Guru", "Hang", "Hani", "Hebr", "Hira", "Kana",
    "Khmr", "Knda", "Laoo", "Latn", "Mlym", "Mymr", "Nkoo", "Sinh", "Syrc", "Taml", "Telu", "Tfng", "Thaa", "Thai", "Tibt",
]  # fmt: skip


class CodeOfConduct(Model):
    """The rules that the expert and the worker rewrite by. Its content is pinned when the job starts."""

    builtin: Literal["ar-1"] | None = None
    """A code of conduct that comes with nativealign."""
    inline: Annotated[str, StringConstraints(min_length=1, max_length=65536)] | None = None
    """A code of conduct as YAML text."""
    config_map: ConfigMapKeyReference | None = None
    """A ConfigMap key with a code of conduct as YAML text."""

    one_of: ClassVar[tuple[str, ...]] = ("builtin", "inline", "configMap")


class Repair(Model):
    """Repairs of damaged text, each recorded for each document. Nothing else is ever normalised in kept text."""

    encoding: bool = True
    """Undo UTF-8 that was read as cp1252 or latin-1, where that is certain."""
    presentation_forms: bool = True
    """Replace Arabic presentation forms (U+FB50 to U+FEFF) by their letters."""


Share = Annotated[float, Field(ge=0, le=1)]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Placeholder = Annotated[str, StringConstraints(max_length=40)]

GULF = ["AE", "BH", "KW", "OM", "QA", "SA"]
ARAB_STATES = [*GULF, "DJ", "DZ", "EG", "IQ", "JO", "KM", "LB", "LY", "MA", "MR", "PS", "SD", "SO", "SY", "TN", "YE"]


class PersonalData(Model):
    """Personal data that placeholders stand for in the cleaned text, before any of it leaves the cluster. Empty: left as it is."""

    countries: Annotated[list[Country], Field(min_length=1, max_length=64)] = ARAB_STATES
    """Whose phone numbers and identity numbers are looked for (ISO 3166-1 alpha-2); international phone numbers always are."""
    email: Placeholder = "[بريد إلكتروني]"
    """For e-mail addresses."""
    phone_number: Placeholder = "[رقم هاتف]"
    """For phone numbers."""
    iban: Placeholder = "[رقم حساب]"
    """For international bank account numbers whose check digits hold."""
    national_id: Placeholder = "[رقم هوية]"
    """For national identity numbers: where their structure or check digit proves them, or words before them say so."""


class FallingLimit(Model):
    """A limit for runs of several lengths, which falls evenly from the shortest to the longest."""

    first: Share
    """For the shortest runs."""
    last: Share
    """For the longest."""


class Quality(Model):
    """Rules of Gopher and FineWeb2 that a text must keep, with the limits that FineWeb2 found for Arabic; shares, 0 to 1.

    A minimum of 0 and a maximum of 1 switch a rule off.
    """

    min_average_word_length: Annotated[float, Field(ge=0, le=100)] = 2
    """Characters of a word, on average, at least."""
    max_average_word_length: Annotated[float, Field(ge=1, le=1000)] = 9
    """Characters of a word, on average, at most."""
    min_alphabetic_words: Share = 0.787
    """Words with a letter in them, at least."""
    min_line_ends: Share = 0.143
    """Lines that end with a mark, Arabic or Latin, at least. Poetry and headlines break it."""
    max_duplicate_lines: Share = 0.304
    """Lines that were there before, at most."""
    max_lines_per_word: Share = 0.189
    """Line breaks over words, at most."""
    max_top_run: FallingLimit = FallingLimit(first=0.197, last=0.146)
    """Characters in the most frequent run of 2, 3 and 4 words, at most."""
    max_duplicate_runs: FallingLimit = FallingLimit(first=0.165, last=0.109)
    """Characters in runs of 5 to 10 words that were there before, at most."""


class RepeatedLines(Model):
    """Lines that many documents of a site have: menus, footers, calls to subscribe. The site is the host of corpora[].urlField,
    and the whole corpus for documents without an address."""

    min_documents: Annotated[int, Field(ge=2, le=10**9)] = 10
    """Documents of the same site that have the line, at least; copies count once."""


class Clean(Model):
    """What is kept before duplicates are looked for."""

    languages: Annotated[list[Language], Field(max_length=16)] = ["ar"]
    """Languages to keep (ISO 639-1, or three letters where there is no such code); dialects count as Arabic. Empty: all."""
    scripts: Annotated[list[Script], Field(max_length=16)] = []
    """Scripts to keep (ISO 15924): at least half of a document's letters must be of one of them. Empty: all."""
    min_words: Annotated[int, Field(ge=0, le=10**6)] = 5
    """Shortest document, in words, after boilerplate is gone."""
    max_words: Annotated[int, Field(ge=1, le=10**7)] = 100_000
    """Longest document, in words."""
    remove_boilerplate: bool = True
    """Drop lines of navigation, sharing, cookies, copyright."""
    repeated_lines: RepeatedLines | None = None
    """Drops lines that are repeated over a site. Default: they stay."""
    repair: Repair = Repair()
    """Repairs of damaged text."""
    personal_data: PersonalData | None = None
    """Masks personal data. Default: it stays, for the code of conduct to decide."""
    quality: Quality | None = None
    """Filters by quality. Default: none."""
    licenses: Annotated[list[License], Field(max_length=256)] = []
    """Licences to keep (SPDX identifiers), by the document's own or else its corpus'. Empty: all."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.minWords) || !has(self.maxWords) || self.minWords <= self.maxWords", "minWords must not exceed maxWords"),
    )

    def problems(self) -> Iterator[str]:
        if self.min_words > self.max_words:
            yield self.cel_rules[0].message


class Decontamination(Model):
    """Benchmarks whose questions no document may hold, neither as it is cleaned nor as it is rewritten."""

    benchmarks: Annotated[list[PublishedBenchmark], Field(max_length=16)] = []
    """Published benchmarks whose questions are looked for."""
    data: BenchmarkData | None = None
    """Files of the published benchmarks."""
    items: Annotated[list[Corpus], Field(max_length=16)] = []
    """Files with questions of your own: one in each record."""
    words: Annotated[int, Field(ge=5, le=100)] = 13
    """Words of a question in a row, after folding, that a document may not hold."""
    min_words: Annotated[int, Field(ge=5, le=100)] = 8
    """Shortest question that is looked for; where it has fewer than `words`, all of it."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("(has(self.minWords) ? self.minWords : 8) <= (has(self.words) ? self.words : 13)", "minWords must not exceed words"),
        Rule("has(self.benchmarks) && size(self.benchmarks) > 0 || has(self.items) && size(self.items) > 0",
             "benchmarks or items must be given"),
        Rule("(has(self.benchmarks) && size(self.benchmarks) > 0) == has(self.data)", "benchmarks and data belong together"),
        Rule("!has(self.items) || self.items.all(a, self.items.exists_one(b, b.name == a.name))",
             "items must have different names"),
    )  # fmt: skip

    def problems(self) -> Iterator[str]:
        names = [item.name for item in self.items]
        broken = (
            self.min_words > self.words,
            not self.benchmarks and not self.items,
            bool(self.benchmarks) != (self.data is not None),
            len(set(names)) != len(names),
        )
        for rule, bad in zip(self.cel_rules, broken, strict=True):
            if bad:
                yield rule.message


class Fuzzy(Model):
    """Near duplicates by MinHash and locality sensitive hashing over word shingles of the folded text."""

    similarity: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Lowest Jaccard similarity of two duplicates, as sketches estimate it."""
    shingle_words: Annotated[int, Field(ge=1, le=20)] = 5
    """Words in a shingle."""
    bands: Annotated[int, Field(ge=1, le=256)] = 14
    """Bands of the signature; two documents are compared when one band is equal."""
    rows: Annotated[int, Field(ge=1, le=64)] = 8
    """Permutations in a band."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Seed of the permutations."""


class Dedup(Model):
    """Which documents count as the same."""

    mode: Literal["Exact", "Fuzzy"] = "Fuzzy"
    """Exact: equal after folding. Fuzzy: also near duplicates."""
    fuzzy: Fuzzy = Fuzzy()
    """Parameters of mode Fuzzy."""


class HeldOut(Model):
    """Documents that no step trains on, for bits per byte in an EvalJob; drawn by duplicate cluster before the seed sample."""

    documents: Annotated[Count, Field(ge=0)] = 1000
    """How many; 0 for none."""
    max_percent: Percent = 5.0
    """At most this part of the documents, in percent."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1
    """Seed of the draw."""


class Seed(Model):
    """The sample that the expert rewrites to teach the worker (paper: 96 K documents at random)."""

    documents: Annotated[Count, Field(ge=1)] = 96_000
    """How many documents; all of them where there are fewer."""
    strategy: Literal["Random", "Stratified", "HighPerplexity", "LowPerplexity"] = "Random"
    """Which documents: the paper's ablation; Stratified takes as many of each corpus as of every other."""
    perplexity_model: ModelFolder | None = None
    """Causal language model for the two perplexity strategies."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Seed of the draw."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.strategy) || !self.strategy.endsWith('Perplexity') || has(self.perplexityModel)",
            "strategy needs perplexityModel",
        ),
    )

    def problems(self) -> Iterator[str]:
        if self.strategy.endswith("Perplexity") and self.perplexity_model is None:
            yield f"strategy {self.strategy} needs perplexityModel"


class TransformersExpert(ModelFolder, TransformersEngine):
    """A chat model in process with transformers, greedy."""


class VllmExpert(ModelFolder, VllmEngine):
    """A chat model in process with vLLM, on GPU, greedy."""


class Expert(Model):
    """Who rewrites the seed sample, and chunks whose guard says so.

    An expert in process is asked for the sample alone where there is a worker, which then has the memory to itself: a chunk whose
    guard says Expert keeps its original.
    """

    rules: RulesEngine | None = None
    """Offline rules."""
    openai: OpenAIEngine | None = None
    """An OpenAI-compatible endpoint."""
    transformers: TransformersExpert | None = None
    """A model in process, on CPU or GPU."""
    vllm: VllmExpert | None = None
    """A model through vLLM, in process: for a GPU, where it is many times as fast."""
    resources: Annotated[Resources | None, Operational] = None
    """For annotating."""

    one_of: ClassVar[tuple[str, ...]] = ("rules", "openai", "transformers", "vllm")

    @property
    def in_process(self) -> bool:
        """Whether it is a model in the step's own pods."""
        return bool(self.transformers or self.vllm)


class Chunking(Model):
    """How a document is cut for rewriting; the same for the seed sample, the worker's training and the rewriting."""

    max_tokens: Annotated[int, Field(ge=16, le=32768)] = 512
    """Longest chunk, in tokens of the worker; without a worker, in words."""
    context_tokens: Annotated[int, Field(ge=0, le=8192)] = 0
    """Tokens of the original text before the chunk that are shown with it."""


class Lora(Model):
    """Low-rank adapters on all linear layers (Hu et al., arXiv 2106.09685), merged into the weights in the end."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of each adapter."""
    alpha: Annotated[int, Field(ge=1, le=4096)] = 32
    """Scale: an adapter counts alpha / rank times."""


class WorkerTraining(Model):
    """Supervised fine-tuning on the pairs, loss on the answer only."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 2
    """Passes over the pairs."""
    global_batch: Annotated[int, Field(ge=1, le=65536)] = 128
    """Sequences in one step."""
    sequence_length: Annotated[int, Field(ge=64, le=131072)] = 2048
    """Length of the packed sequences, in tokens."""
    lora: Lora | None = None
    """Trains adapters instead of all weights. Default: all weights."""
    held_out_percent: Annotated[float, Field(ge=0, le=50)] = 2.0
    """Pairs that are not trained on, of whole documents, in percent and about 500 at most: their loss and their guards show what
    the worker has learnt."""
    evaluate_every_steps: Annotated[int, Field(ge=1, le=10**6)] = 50
    """Steps between two measurements of the held-out loss; the last step is always measured."""
    patience: Annotated[int | None, Field(ge=1, le=1000)] = None
    """Measurements without a lower held-out loss after which the training ends; each lower one makes a checkpoint, and the worker
    is that of the lowest. Default: it runs to the end of its epochs, and the worker is that of the last step."""
    max_identity_percent: Percent = 30.0
    """Pairs that the expert left unchanged, at most, in percent of all."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Seed of the order."""
    optimizer: Optimizer = Optimizer()
    """Optimizer."""
    deepspeed: DeepSpeed = DeepSpeed()
    """DeepSpeed."""
    checkpoint_every_steps: Annotated[int, Operational, Field(ge=1, le=10**6)] = 200
    """Steps between two checkpoints."""


class Worker(Model):
    """The small model that learns to rewrite. Without it the expert rewrites the whole corpus."""

    base: BaseModelSource
    """Model to start from (paper: Qwen1.5-4B-Chat)."""
    train: WorkerTraining = WorkerTraining()
    """How it is trained."""
    resources: Annotated[Resources | None, Operational] = None
    """For training the worker."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.base.fromConfig) || !has(self.train) || !has(self.train.sequenceLength)"
             " || !has(self.base.fromConfig.maxPosition) || self.train.sequenceLength <= self.base.fromConfig.maxPosition",
             "train.sequenceLength must not exceed base.fromConfig.maxPosition"),
    )  # fmt: skip

    def problems(self) -> Iterator[str]:
        tiny = self.base.from_config
        if tiny and self.train.sequence_length > tiny.max_position:
            yield self.cel_rules[0].message


class Rewrite(Model):
    """How the corpus is rewritten."""

    transformers: TransformersEngine | None = None
    """The trained worker, in process. The default where there is a worker."""
    vllm: VllmEngine | None = None
    """The trained worker through vLLM, in process: for a GPU, where it is many times as fast."""
    openai: ServedModel | None = None
    """The trained worker on a server of your own, which takes prompts as tokens (completions of vLLM, SGLang, llama.cpp). It must
    answer when the rewriting begins, and bills nothing; `nativealign download --worker` writes the folder to serve."""
    max_output_ratio: Annotated[float, Field(ge=1, le=8)] = 1.4
    """Longest rewriting, in tokens, as a multiple of the chunk's length (64 are added)."""
    max_retries: Annotated[int, Field(ge=0, le=10)] = 1
    """Times that a chunk is generated again when a guard says Retry."""
    chunks_per_shard: Annotated[Count, Field(ge=1)] = 4000
    """Chunks of a shard, as estimated from a sample, where sharding.shards is not given; at most 10,000 shards are made. For each
    shard a pod loads the worker once."""
    parallelism: Annotated[int | None, Operational, Field(ge=1, le=10000)] = None
    """Pods at the same time; default spec.parallelism."""
    resources: Annotated[Resources | None, Operational] = None
    """For rewriting."""


class ToxicityModel(ModelFolder):
    """A text classifier of transformers (AutoModelForSequenceClassification)."""

    toxic_labels: Annotated[list[str], Field(min_length=1, max_length=32)]
    """Labels whose probabilities are added up."""


class Assess(Model):
    """What is measured before and after, on a sample."""

    documents: Annotated[Count, Field(ge=1)] = 500
    """Size of the sample."""
    perplexity_model: ModelFolder | None = None
    """Causal language model for perplexity before and after."""
    toxicity_model: ToxicityModel | None = None
    """Classifier for toxicity before and after."""
    judge: Judge | None = None
    """Judge of the paper's five aspects, 1 to 10."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 7
    """Seed of the draw."""
    resources: Annotated[Resources | None, Operational] = None
    """For assessing."""


class AlignGates(Model):
    """When the job ends as GateFailed. The data is kept; another job uses it only with acceptFailedGate."""

    max_fallback_percent: Percent | None = None
    """Chunks that kept their original because of a guard, at most, in percent."""
    max_dropped_percent: Percent | None = None
    """Chunks dropped by a guard, at most, in percent."""
    min_number_preservation_percent: Percent | None = None
    """Numbers of the original that the rewriting keeps, at least, in percent."""
    min_name_preservation_percent: Percent | None = None
    """Names of places and persons, and names in Latin letters, that the rewriting keeps, at least, in percent."""
    max_toxicity_percent: Percent | None = None
    """Mean toxicity after rewriting, at most, in percent; needs assess.toxicityModel."""
    min_judge_score: Annotated[float | None, Field(ge=1, le=10)] = None
    """Mean of the judge's five aspects, at least; needs assess.judge."""


class AlignJobSpec(JobSpec):
    """What to align, by which rules, with which models."""

    corpora: Annotated[list[Corpus], Field(min_length=1, max_length=64)]
    """Input; where documents are the same, the one of the first corpus is kept."""
    max_quarantined_percent: Annotated[Percent, Operational] = 5.0
    """Unreadable records and files, at most, in percent of the records; more fail the job."""
    sharding: Sharding = Sharding()
    """How the input is cut."""
    clean: Clean = Clean()
    """Cleaning."""
    decontamination: Decontamination | None = None
    """Keeps benchmarks out of the corpus. Default: nothing is looked for."""
    dedup: Dedup = Dedup()
    """Deduplication."""
    held_out: HeldOut = HeldOut()
    """Documents kept away from training."""
    code_of_conduct: CodeOfConduct = CodeOfConduct(builtin="ar-1")
    """Rules of rewriting, with guards and judge rubric."""
    seed: Seed = Seed()
    """Sample for the expert."""
    expert: Expert
    """Who rewrites the sample."""
    chunking: Chunking = Chunking()
    """How documents are cut."""
    worker: Worker | None = None
    """Alignment worker."""
    rewrite: Rewrite = Rewrite()
    """Rewriting of the corpus."""
    assess: Assess = Assess()
    """Measurements before and after."""
    gates: AlignGates = AlignGates()
    """Conditions of success."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.corpora.all(a, self.corpora.exists_one(b, b.name == a.name))", "corpora must have different names"),
        Rule(
            "has(self.worker) || !has(self.rewrite) || !has(self.rewrite.transformers) && !has(self.rewrite.vllm)"
            " && !has(self.rewrite.openai)",
            "rewrite.transformers, rewrite.vllm and rewrite.openai need worker",
        ),
        Rule(
            "!has(self.worker) || !has(self.worker.train) || !has(self.worker.train.sequenceLength) || !has(self.chunking)"
            " || !has(self.chunking.maxTokens) || 2 * self.chunking.maxTokens < self.worker.train.sequenceLength",
            "worker.train.sequenceLength must hold a chunk and its rewriting: more than twice chunking.maxTokens",
        ),
        Rule(
            "!has(self.gates) || !has(self.gates.maxToxicityPercent) || (has(self.assess) && has(self.assess.toxicityModel))",
            "gates.maxToxicityPercent needs assess.toxicityModel",
        ),
        Rule(
            "!has(self.gates) || !has(self.gates.minJudgeScore) || (has(self.assess) && has(self.assess.judge))",
            "gates.minJudgeScore needs assess.judge",
        ),
        Rule(
            "!has(self.rewrite) || [has(self.rewrite.transformers), has(self.rewrite.vllm), has(self.rewrite.openai)]"
            ".filter(given, given).size() < 2",
            "rewrite has one engine: transformers, vllm or openai",
        ),
    )

    def problems(self) -> Iterator[str]:
        names = [corpus.name for corpus in self.corpora]
        if len(set(names)) != len(names):
            yield self.cel_rules[0].message
        engines = [engine for engine in (self.rewrite.transformers, self.rewrite.vllm, self.rewrite.openai) if engine]
        if self.worker is None and engines:
            yield self.cel_rules[1].message
        if self.worker and 2 * self.chunking.max_tokens >= self.worker.train.sequence_length:
            yield self.cel_rules[2].message
        if self.gates.max_toxicity_percent is not None and self.assess.toxicity_model is None:
            yield self.cel_rules[3].message
        if self.gates.min_judge_score is not None and self.assess.judge is None:
            yield self.cel_rules[4].message
        if len(engines) > 1:
            yield self.cel_rules[5].message
