"""The training loop, used by the steps `train-worker` and `train`. All ranks call `train` with equal arguments.

The global batch is fixed in samples, and sample n is a pure function of n; a step's loss is the sum over its labels
divided by their number, over all micro batches and ranks. So neither world size, nor micro batch, nor a restart
changes the loss curve (beyond rounding).
"""

import contextlib
import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nativealign_workloads.errors import DataError, StoppedError
from nativealign_workloads.training import deepspeed_env, launch, ranks, resume
from nativealign_workloads.training.checkpoint import ObjectCheckpoints
from nativealign_workloads.training.export import export
from nativealign_workloads.training.model import load_model, with_adapters
from nativealign_workloads.training.packing import IGNORED, Sample
from nativealign_workloads.training.samples import Rows
from nativealign_workloads.training.schedule import learning_rate
from nativealign_workloads.training.settings import BatchPlan, TrainingSettings, batch_plan

if TYPE_CHECKING:
    import torch
    from deepspeed import DeepSpeedEngine


log = logging.getLogger(__name__)


class Samples(Protocol):
    """Where samples come from; `samples.MixedSamples` is one."""

    sequence_length: int

    def sample(self, n: int) -> Sample: ...


@dataclass(frozen=True)
class StepMetrics:
    """One line of metrics.jsonl. `step` counts from 1; `tokens` and `label_tokens` from the start of the run."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    label_tokens: int
    tokens_per_second: float


@dataclass(frozen=True)
class TrainResult:
    """What a finished run came to; equal on all ranks, though `model` and `metrics` lie on rank 0's node."""

    steps: int
    resumed_from: int
    tokens: int
    label_tokens: int
    first_loss: float
    final_loss: float
    held_out: list[tuple[int, float]]
    """(step, loss per label on the held-out rows), in order."""
    exported_step: int
    """After which the model's weights were exported: the last, or with `patience` that of the lowest held-out loss."""
    model: Path
    metrics: Path


def train(
    model_folder: Path,
    samples: Samples,
    settings: TrainingSettings,
    checkpoints: ObjectCheckpoints,
    folder: Path,
    on_step: Callable[[StepMetrics], None] = lambda metrics: None,
    stop: Callable[[], bool] = lambda: False,
    held_out: Rows | None = None,
) -> TrainResult:
    """Train, going on from the newest sound checkpoint, and export to `folder`/model.

    `held_out` is measured every `evaluate_every_steps` steps and at the end. With `settings.patience` the run may end before that,
    and the weights of the lowest loss are exported.
    `on_step` is called on rank 0 only. When `stop` says True on any rank, all save a checkpoint after the same step and
    raise StoppedError. A loss that is not finite is a DataError naming the step; its update is not applied.
    """
    plan = batch_plan(settings, deepspeed_env.world_size(), samples.sequence_length)
    engine = _engine(model_folder, settings, plan)
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(engine, samples, settings, plan, checkpoints, folder, held_out)
    resumed = run.start()
    while not run.ended():
        launch.tell(launch.STEP)
        if ranks.total(stop())[0]:
            run.save()
            raise StoppedError("Stopped", f"asked to stop; {run.step} of {settings.total_steps} steps are saved")
        metrics = run.advance()
        if deepspeed_env.rank() == 0:
            on_step(metrics)
        run.measure()
        if (run.step % settings.checkpoint_every_steps == 0 or run.best() == run.step) and not run.ended():
            run.save()
    launch.tell("export")
    exported = run.go_to_best()
    probe = _tensor([samples.sample(0).input_ids], "cpu")
    model = export(engine, model_folder, probe, settings, folder / "model")
    return ranks.broadcast(run.result(resumed, exported, model))


class _Run:
    """The state of a run between steps: the engine, and how far it is."""

    def __init__(
        self,
        engine: "DeepSpeedEngine",
        samples: Samples,
        settings: TrainingSettings,
        plan: BatchPlan,
        checkpoints: ObjectCheckpoints,
        folder: Path,
        held_out: Rows | None,
    ) -> None:
        self.held_out, self.measured = held_out, list[tuple[int, float]]()
        self.engine, self.samples, self.settings, self.plan = engine, samples, settings, plan
        self.checkpoints, self.scratch = checkpoints, folder / "checkpoints"
        self.metrics = folder / resume.METRICS
        self.step = self.tokens = self.label_tokens = self.saved = 0

    def start(self) -> int:
        """Go to the newest checkpoint, or to the beginning; returns the steps that are done."""
        if deepspeed_env.rank() == 0:
            self.metrics.write_bytes(b"")
        if deepspeed_env.local_rank() == 0:
            shutil.rmtree(self.scratch, ignore_errors=True)
        self.step, state = resume.restore(self.engine, self.checkpoints, self.settings, self.metrics, self.scratch)
        self.tokens, self.label_tokens = state.get("tokens", 0), state.get("label_tokens", 0)
        self.measured = [(step, loss) for step, loss in state.get("held_out", [])]
        self.saved = self.step
        return self.step

    def ended(self) -> bool:
        """Whether all steps are done, or the held-out loss has not fallen for so long that more would not help."""
        return self.step >= self.settings.total_steps or stalled([loss for _, loss in self.measured], self.settings.patience)

    def best(self) -> int | None:
        """Step of the lowest held-out loss; None where nothing is measured, or the last weights are wanted whatever it is."""
        return min(self.measured, key=lambda found: found[1])[0] if self.settings.patience and self.measured else None

    def go_to_best(self) -> int:
        """Takes the best step's weights again; returns the step whose weights the engine has."""
        best = self.best()
        if best is None or best == self.step:
            return self.step
        if resume.restore_step(self.engine, self.checkpoints, self.settings, best, self.scratch):
            return best
        log.warning("the checkpoint of step %d, the best, is gone or damaged; the last weights are exported", best)
        return self.step

    def measure(self) -> None:
        """Notes the held-out loss, where it is time for it."""
        due = self.step % self.settings.evaluate_every_steps == 0 or self.step == self.settings.total_steps
        if self.held_out and due:
            launch.tell("measure")
            self.measured.append((self.step, self._held_out_loss(self.held_out)))

    def _held_out_loss(self, rows: Rows) -> float:
        """Mean loss per label. Every rank makes the same number of passes, which partitioned weights need."""
        import torch

        self.engine.eval()
        world, micro = self.plan.world_size, self.plan.micro
        own, labels = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(rows), world * micro):
                first = start + deepspeed_env.rank() * micro
                part = [rows.sample(row) for row in range(first, min(first + micro, len(rows)))]
                labels += _counts(part)[0]
                loss = self._loss(part or [rows.sample(0)], 1).item()
                own += loss if part else 0.0
        total, count = ranks.total(own, labels)
        return total / count

    def _loss(self, part: list[Sample], labels: int) -> "torch.Tensor":
        """Sum of the losses over `labels`."""
        device = self.engine.device
        loss: torch.Tensor = self.engine(
            input_ids=_tensor([sample.input_ids for sample in part], device),
            position_ids=_tensor([sample.position_ids for sample in part], device),
            labels=_tensor([sample.labels for sample in part], device),
            num_items_in_batch=labels,
            use_cache=False,
        ).loss
        return loss

    def save(self) -> None:
        if self.saved == self.step:
            return
        launch.tell("save")
        state = {"tokens": self.tokens, "label_tokens": self.label_tokens, "held_out": self.measured}
        resume.save(self.engine, self.checkpoints, self.settings, self.step, state, self.metrics, self.scratch, self.best())
        self.saved = self.step

    def advance(self) -> StepMetrics:
        """One optimiser step over the next global batch."""
        began = time.perf_counter()
        batch = self._batch()
        labels, tokens = map(int, ranks.total(*_counts(batch)))
        if labels == 0:
            raise DataError("NoLabels", f"step {self.step + 1} has no token that carries a loss")
        loss = self._backward(batch, labels)
        rate = learning_rate(self.step, self.settings)
        grad_norm = self._update(rate)
        self._check_finite("Gradient", grad_norm)
        self.step, self.tokens, self.label_tokens = self.step + 1, self.tokens + tokens, self.label_tokens + labels
        speed = round(tokens / (time.perf_counter() - began), 1)
        metrics = StepMetrics(self.step, loss, rate, grad_norm, self.tokens, self.label_tokens, speed)
        if deepspeed_env.rank() == 0:
            with self.metrics.open("a") as stream:
                stream.write(json.dumps(asdict(metrics)) + "\n")
        return metrics

    def _batch(self) -> list[Sample]:
        """This rank's share of the global batch, in order."""
        first = self.step * self.settings.global_batch_samples + deepspeed_env.rank() * self.plan.per_rank
        return [self.samples.sample(first + i) for i in range(self.plan.per_rank)]

    def _backward(self, batch: list[Sample], labels: int) -> float:
        """Accumulate the gradients of all micro batches; returns the global batch's mean loss per label."""
        import torch

        # dropout, if the base model has any, is then a function of (seed, step, rank) too
        torch.manual_seed(hash((self.settings.seed, self.step, deepspeed_env.rank())) & 0x7FFFFFFF)
        self.engine.train()
        own = 0.0
        for start in range(0, len(batch), self.plan.micro):
            part = batch[start : start + self.plan.micro]
            loss = self._loss(part, labels)
            own += loss.item()
            # DeepSpeed averages gradients over ranks; the loss is already divided by all labels
            self.engine.backward(loss * self.plan.world_size, scale_wrt_gas=False)
            if start + self.plan.micro < len(batch):
                self.engine.step()  # only counts the micro batch; the last one's step updates the weights
        (mean,) = ranks.total(own)
        self._check_finite("Loss", mean)
        return mean

    def _update(self, rate: float) -> float:
        """Apply the accumulated gradients; returns their global norm before clipping."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        norm = None
        if not self.engine.zero_optimization() and not self.engine.bfloat16_enabled():
            import torch

            norm = torch.nn.utils.get_total_norm([p.grad for p in self.engine.module.parameters() if p.grad is not None])
        self.engine.step()
        return float(norm if norm is not None else self.engine.get_global_grad_norm())

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            first = self.step * self.settings.global_batch_samples
            last = first + self.settings.global_batch_samples - 1
            raise DataError(
                f"NonFinite{what}",
                f"the {what.lower()} of step {self.step + 1} (samples {first} to {last}) is {value}",
                "lower the learning rate, lengthen the warm-up, or look at these samples",
            )

    def result(self, resumed: int, exported: int, model: Path) -> TrainResult:
        losses = [math.nan]
        if deepspeed_env.rank() == 0:
            losses = [json.loads(line)["loss"] for line in self.metrics.read_text().splitlines()]
        return TrainResult(
            self.step,
            resumed,
            self.tokens,
            self.label_tokens,
            losses[0],
            losses[-1],
            self.measured,
            exported,
            model,
            self.metrics,
        )


def stalled(losses: list[float], patience: int | None) -> bool:
    """Whether the last `patience` losses are all no lower than the lowest before them."""
    return patience is not None and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def _engine(model_folder: Path, settings: TrainingSettings, plan: BatchPlan) -> "DeepSpeedEngine":
    deepspeed = deepspeed_env.start_deepspeed()
    import torch

    config = deepspeed_env.deepspeed_config(settings, plan)
    model = load_model(model_folder, settings.precision, config)
    if settings.activation_checkpointing:
        _checkpoint_activations(model, settings)
    if settings.lora_rank:
        model = with_adapters(model, settings.lora_rank, settings.lora_alpha, settings.seed)
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, settings.weight_decay),
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
    )
    with contextlib.redirect_stdout(None):  # it prints its memory use whatever its log level
        return deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]


def _checkpoint_activations(model: Any, settings: TrainingSettings) -> None:
    """Recompute layers in the backward pass. Partitioned parameters have another shape then, which only the
    re-entrant form tolerates; that one, and weights that are frozen, need an input with a gradient."""
    reentrant = settings.zero_stage == 3
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant or settings.lora_rank:
        model.enable_input_require_grads()


def _parameter_groups(model: "torch.nn.Module", weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors (norms, biases) do not. A partitioned parameter keeps its shape in `ds_shape`."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [p for p in parameters if len(getattr(p, "ds_shape", p.shape)) >= 2]
    vectors = [p for p in parameters if len(getattr(p, "ds_shape", p.shape)) < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _counts(batch: list[Sample]) -> tuple[int, int]:
    """Labels and tokens of a batch."""
    return sum(int((sample.labels != IGNORED).sum()) for sample in batch), sum(sample.length for sample in batch)


def _tensor(rows: list[Any], device: Any) -> "torch.Tensor":
    import numpy as np
    import torch

    return torch.from_numpy(np.stack(rows)).to(device)
