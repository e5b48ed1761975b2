"""A causal language model from a local folder, through transformers, on CPU or GPU.

Called by rewrite (the worker) and annotate. Greedy decoding, left-padded batches in order of length. The composition of the
batches is a pure function of the requests given, so a caller that wants the same bytes after a restart gives the same requests
together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nativealign_workloads.conduct.prompt import prompt_ids
from nativealign_workloads.engines.local import Answers, end_ids, penalty, reply_to, too_long
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.errors import ConfigError, StepError
from nativealign_workloads.libraries import import_libraries
from nativealign_workloads.model_files import check_model_folder

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class _Job:
    """The request at `index` of a call: its prompt's ids, and how many new tokens fit and are wanted (at least 1)."""

    index: int
    prompt: list[int]
    wanted: int
    attempt: int


class TransformersEngine:
    """Loads once; `device` is `auto` (a GPU when there is one), `cpu`, `cuda`, ...

    Raises NoInputError `ModelNotFound`, ConfigError `PickledWeights`, `RemoteCode` or `ModelUnreadable`.
    """

    def __init__(self, model_dir: Path, batch_size: int, device: str = "auto", precision: str = "Float32") -> None:
        check_model_folder(model_dir)
        import_libraries()
        import torch

        self._device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self._batch_size, self._model_dir = batch_size, model_dir
        self._interrupted: StepError | None = None
        self._model, self._tokenizer = _load(model_dir, self._device, precision)
        generation, config = self._model.generation_config, self._model.config
        self._ends = end_ids(generation.eos_token_id, config.eos_token_id, self._tokenizer.eos_token_id)
        self._pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else next(iter(self._ends), 0)
        # generate() would fill our gaps from the model's own file, e.g. with sampling
        self._model.generation_config = self._generation_config(max_new_tokens=1, attempt=0)

    @property
    def name(self) -> str:
        return f"transformers:{self._model_dir.name}"

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Replies in the order of the requests; a prompt that fills the model's context is an `Error` reply."""
        prompts = [prompt_ids(request.messages, self._tokenizer) for request in requests]
        replies: dict[int, Reply] = {}
        fitting = [i for i, prompt in enumerate(prompts) if 0 < len(prompt) < self._context]
        for i in set(range(len(requests))) - set(fitting):
            replies[i] = too_long(requests[i], len(prompts[i]), self._context, self._model_dir.name)
        jobs = [
            _Job(i, prompts[i], min(requests[i].max_tokens, self._context - len(prompts[i])), requests[i].attempt) for i in fitting
        ]
        for batch in _batches(jobs, self._context, self._batch_size):
            if self._interrupted:
                raise self._interrupted
            for job, generated in zip(batch, self._run(batch), strict=True):
                replies[job.index] = self._reply(requests[job.index], job, generated)
        return [replies[i] for i in range(len(requests))]

    def answers(self, batches: Sequence[Sequence[Request]]) -> Iterator[Answers]:
        """Batch for batch, as they are given where none is larger than the engine's own."""
        for batch in batches:
            yield list(zip(batch, self.generate(batch), strict=True))

    @property
    def wave(self) -> int:
        return self._batch_size

    def interrupt(self, error: StepError) -> None:
        self._interrupted = error

    def close(self) -> None:
        self._model = None
        if self._device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

    @property
    def _context(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", None) or 1 << 30)

    def _run(self, batch: "list[_Job]") -> list[list[int]]:
        """New tokens of each job, at most as many as it wants."""
        import torch

        width = max(len(job.prompt) for job in batch)
        padded = [[self._pad] * (width - len(job.prompt)) + job.prompt for job in batch]
        mask = [[0] * (width - len(job.prompt)) + [1] * len(job.prompt) for job in batch]
        config = self._generation_config(max_new_tokens=max(job.wanted for job in batch), attempt=batch[0].attempt)
        try:
            with torch.inference_mode():
                output = self._model.generate(
                    input_ids=torch.tensor(padded, device=self._device),
                    attention_mask=torch.tensor(mask, device=self._device),
                    generation_config=config,
                )
        except torch.cuda.OutOfMemoryError as error:
            problem = f"{len(batch)} prompts of up to {width} tokens do not fit on {self._device}"
            raise ConfigError("OutOfMemory", problem, "lower the batch size") from error
        return [row[: job.wanted] for job, row in zip(batch, output[:, width:].tolist(), strict=True)]

    def _reply(self, request: Request, job: "_Job", generated: list[int]) -> Reply:
        return reply_to(request, len(job.prompt), generated, self._ends, self._tokenizer, self._model_dir.name)

    def _generation_config(self, max_new_tokens: int, attempt: int) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=penalty(attempt),
            max_new_tokens=max_new_tokens,
            pad_token_id=self._pad,
            eos_token_id=sorted(self._ends) or None,
        )


def _load(model_dir: Path, device: "torch.device", precision: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir, **local)
        dtype = {"Float32": torch.float32, "BFloat16": torch.bfloat16}[precision]
        model: Any = AutoModelForCausalLM.from_pretrained(model_dir, use_safetensors=True, dtype=dtype, **local)
    except StepError:
        raise
    except Exception as error:  # every library below has its own family of errors for a damaged file
        problem = " ".join(str(error).split())[:300]
        raise ConfigError("ModelUnreadable", f"{model_dir}: {problem}", "check that the folder is complete") from error
    return model.eval().to(device), tokenizer


def _batches(jobs: "list[_Job]", context: int, size: int) -> "Iterator[list[_Job]]":
    """Jobs in order of length, longest first so that memory fails early, ties by position.

    A job that wants more than the longest prompt of its batch leaves of the context begins the next batch.
    """
    batch: list[_Job] = []
    for job in sorted(jobs, key=lambda j: (j.attempt, -len(j.prompt), -j.wanted, j.index)):
        full = len(batch) == size or (batch and job.wanted > context - len(batch[0].prompt))
        if batch and (full or job.attempt != batch[0].attempt):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch
