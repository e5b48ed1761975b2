"""Toxicity of texts under a sequence classifier of transformers. Called by assess."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from nativealign_workloads.errors import ConfigError, UsageError
from nativealign_workloads.libraries import import_libraries

BATCH = 16
MAX_TOKENS = 512


class Classifier:
    """Probability that a text is toxic: the sum of the probabilities of the given labels; of a model whose labels do not exclude
    each other (`problem_type: multi_label_classification`) the largest of them.

    Raises UsageError UnknownLabel where the model does not have one of them, ConfigError NotAClassifier where weights are missing.
    """

    def __init__(self, folder: Path, labels: list[str], device: str) -> None:
        import_libraries()
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        if loaded["missing_keys"]:
            names = ", ".join(sorted(loaded["missing_keys"])[:3])
            raise ConfigError("NotAClassifier", f"the toxicity model has no weights for {names}", "give a trained classifier")
        self._model = model.eval().to(device)
        known = {str(name): int(number) for number, name in self._model.config.id2label.items()}
        missing = [label for label in labels if label not in known]
        if missing:
            raise UsageError("UnknownLabel", f"the toxicity model has no label {', '.join(missing)}", f"it has: {', '.join(known)}")
        self._columns = [known[label] for label in labels]

    def score(self, texts: Iterable[str]) -> list[float]:
        """One value in 0..1 for each text; texts are cut at 512 tokens."""
        left, values = iter(texts), list[float]()
        while batch := list(islice(left, BATCH)):
            values += self._batch(batch)
        return values

    def _batch(self, texts: list[str]) -> list[float]:
        import torch

        inputs = self._tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=MAX_TOKENS).to(
            self._model.device
        )
        with torch.inference_mode():
            logits = self._model(**inputs).logits.float()
        if self._model.config.problem_type == "multi_label_classification":
            values: list[float] = logits[:, self._columns].sigmoid().amax(dim=1).tolist()
        else:
            values = logits.softmax(dim=-1)[:, self._columns].sum(dim=1).tolist()
        return values
