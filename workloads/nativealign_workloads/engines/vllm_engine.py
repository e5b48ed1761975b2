"""A causal language model from a local folder, through vLLM: continuous batches, and one cache for what prompts have in common.

Called through `Recorded`, from several threads that share the engine. Greedy decoding. Which sequences share a batch follows from
when others end, so low bits of the logits, and with them a few answers, may differ from run to run; what the journal holds is not
generated again.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from typing import Any

from nativealign_workloads.conduct.prompt import prompt_ids
from nativealign_workloads.engines.local import Answers, end_ids, penalty, reply_to, too_long
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.errors import ConfigError, StepError, UnavailableError
from nativealign_workloads.libraries import check_accelerators
from nativealign_workloads.model_files import check_model_folder

QUIET = {
    "VLLM_NO_USAGE_STATS": "1",  # it would tell its makers of each start
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would take the threads' locks with it
    "HF_HUB_OFFLINE": "1",
}


def check_installed() -> None:
    """Raises ConfigError PackageMissing."""
    if find_spec("vllm") is None:
        hint = "take the image for accelerators, or install nativealign[workloads-gpu]"
        raise ConfigError("PackageMissing", "vllm is asked for, and the package is not installed", hint)


class VllmEngine:
    """Loads once, in a process of its own; `gpus`: accelerators that share the model's tensors.

    Raises NoInputError `ModelNotFound`, ConfigError `PackageMissing`, `PickledWeights`, `RemoteCode` or `ModelUnreadable`,
    UnavailableError `AcceleratorMissing`.
    """

    def __init__(self, model_dir: Path, sequences: int, precision: str = "BFloat16", gpus: int = 1) -> None:
        check_model_folder(model_dir)
        self._model_dir = model_dir
        self._interrupted: StepError | None = None
        self._llm = _load(model_dir, sequences, precision, gpus)
        self._tokenizer = self._llm.get_tokenizer()
        config = self._llm.model_config
        generation = config.try_get_generation_config().get("eos_token_id")
        self._ends = end_ids(generation, getattr(config.hf_text_config, "eos_token_id", None), self._tokenizer.eos_token_id)
        self._context = int(config.max_model_len)
        self._numbers = count()
        self._incoming: list[tuple[str, dict[str, list[int]], Any]] = []
        """Requests that the next step takes to the engine: number, prompt, how to sample."""
        self._inboxes: dict[str, list[Any]] = {}
        """Where what comes of a request goes, by its number."""
        self._stepping = False
        self._changed = threading.Condition()

    def answers(self, batches: Sequence[Sequence[Request]]) -> Iterator[Answers]:
        """As they come; a prompt that fills the model's context is an `Error` reply."""
        asked: dict[str, tuple[Request, int]] = {}
        inbox: list[Any] = []
        for request in chain.from_iterable(batches):
            prompt = prompt_ids(request.messages, self._tokenizer)
            if len(prompt) >= self._context:
                yield [(request, too_long(request, len(prompt), self._context, self._model_dir.name))]
                continue
            asked[self._add(request, prompt, inbox)] = request, len(prompt)
        while asked:
            yield [self._answer(*asked.pop(output.request_id), output) for output in self._come(inbox)]

    def interrupt(self, error: StepError) -> None:
        self._interrupted = error

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()

    def _add(self, request: Request, prompt: list[int], inbox: list[Any]) -> str:
        """Asks for an answer that goes into the inbox; returns its number."""
        with self._changed:
            number = str(next(self._numbers))
            self._inboxes[number] = inbox
            self._incoming.append((number, {"prompt_token_ids": prompt}, self._sampling(request, len(prompt))))
        return number

    def _come(self, inbox: list[Any]) -> list[Any]:
        """What has come of a caller's requests. Who finds nothing, and nobody at it, takes the next step of the engine for all."""
        with self._changed:
            self._changed.wait_for(lambda: inbox or not self._stepping)
            if inbox:
                found, inbox[:] = list(inbox), []
                return found
            self._stepping, incoming, self._incoming = True, self._incoming, []
        outputs: list[Any] = []
        try:
            for arguments in incoming:
                self._llm.llm_engine.add_request(*arguments)
            outputs = self._step()
        finally:
            with self._changed:
                for output in outputs:
                    if output.finished:
                        self._inboxes.pop(output.request_id).append(output)
                self._stepping = False
                self._changed.notify_all()
        return []

    def _step(self) -> list[Any]:
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._interrupted:
            raise self._interrupted
        try:
            found: list[Any] = self._llm.llm_engine.step()
        except EngineDeadError as error:
            raise UnavailableError("EngineDied", f"vLLM has ended: {error}", "see the pod's log for the cause") from error
        return found

    def _answer(self, request: Request, prompt: int, output: Any) -> tuple[Request, Reply]:
        generated = list(output.outputs[0].token_ids)
        return request, reply_to(request, prompt, generated, self._ends, self._tokenizer, self._model_dir.name)

    def _sampling(self, request: Request, prompt: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=0,
            repetition_penalty=penalty(request.attempt),
            max_tokens=min(request.max_tokens, self._context - prompt),
            stop_token_ids=sorted(self._ends),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _load(model_dir: Path, sequences: int, precision: str, gpus: int) -> Any:
    check_installed()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import torch

    check_accelerators(torch.cuda.device_count())  # no more is asked of CUDA before vLLM starts its processes
    from vllm import LLM

    try:
        return LLM(
            str(model_dir),
            dtype={"Float32": "float32", "BFloat16": "bfloat16"}[precision],
            max_num_seqs=sequences,
            max_model_len=-1,  # what the memory holds, at most what the model was made for
            tensor_parallel_size=gpus,
            enable_prefix_caching=True,
            load_format="safetensors",
            generation_config="vllm",  # else the model's own file could ask for sampling
            seed=0,
        )
    except Exception as error:  # every layer below has its own family of errors
        problem = " ".join(str(error).split())[:300]
        raise ConfigError("ModelUnreadable", f"{model_dir}: {problem}", "see the pod's log for what vLLM says") from error
