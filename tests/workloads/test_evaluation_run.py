"""A real, tiny model through lm-eval on benchmark folders written here in their public formats."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nativealign_workloads.errors import DataError, NoInputError, UsageError
from nativealign_workloads.evaluate.benchmarks import BenchmarkRequest
from nativealign_workloads.evaluate.bits_per_byte import bits_per_byte
from nativealign_workloads.evaluate.models import fingerprint, load_model
from nativealign_workloads.evaluate.run import evaluate_model, read_rows
from nativealign_workloads.evaluate.scores import score_benchmarks
from nativealign_workloads.evaluate.tasks import plan

SENTENCES = ["القاهرة عاصمة مصر", "بغداد عاصمة العراق", "الرباط عاصمة المغرب", "صنعاء عاصمة اليمن", "عمان عاصمة الأردن"]
REQUESTS = [BenchmarkRequest("arabicmmlu"), BenchmarkRequest("acva-all")]


def tiny_model(folder: Path, seed: int, context: int = 512, chat_template: str | None = None) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = [*SENTENCES, "سؤال: إجابة: نعم لا", "This is a question. Select the correct answer! A. B. Answer: A B C D E"]
    special = ["<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(text * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.chat_template = chat_template
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "a", seed=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    head = "ID,Source,Country,Group,Subject,Level,Question,Context,Answer Key,Option 1,Option 2,Option 3,Option 4,Option 5"
    rows = [
        f"{n},u,Egypt,STEM,Physics,High,{text}؟,,{'AB'[n % 2]},س,ص,{'ع' * (n % 3 > 0)},,,{int(n > 3)}"
        for n, text in enumerate(SENTENCES)
    ]
    write(folder / "ArabicMMLU" / "ArabicMMLU.csv", "\n".join([f"{head},is_few_shot", *rows]) + "\n")
    acva(folder, "test", [(f"Egypt modern-{n}", text) for n, text in enumerate(SENTENCES)])
    acva(folder, "dev", [("Egypt modern-90", SENTENCES[0]), *((f"Egypt modern-{n}", f"جملة {n}") for n in (91, 92))])
    return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def acva(folder: Path, split: str, questions: Sequence[tuple[str, str]]) -> None:
    rows = [{"id": i, "question": text, "answer": ("نعم", "لا")[n % 2]} for n, (i, text) in enumerate(questions)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write(folder / "ArabicCulture" / f"difficulty-easy-TF_{split}.jsonl", lines)


def direct_letter_scores(model_dir: Path, prompt: str, letters: str) -> list[float]:
    """log p(" A" | prompt) and so on, by transformers alone."""
    import torch

    model, tokenizer = load_model(model_dir, "cpu")
    scores = []
    for letter in letters:
        context = tokenizer(prompt)["input_ids"]
        whole = tokenizer(f"{prompt} {letter}")["input_ids"]
        assert whole[: len(context)] == context
        with torch.inference_mode():
            logs = torch.log_softmax(model(torch.tensor([whole])).logits[0].float(), -1)
        scores.append(sum(float(logs[n - 1, whole[n]]) for n in range(len(context), len(whole))))
    return scores


def direct_response(model_dir: Path, prompt: str, new_tokens: int) -> str:
    import torch

    model, tokenizer = load_model(model_dir, "cpu")
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    for _ in range(new_tokens):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))


def test_two_benchmarks_give_rows_scores_and_progress(model: Path, data: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    paths = evaluate_model(model, REQUESTS, data, tmp_path, batch_size=2, on_progress=lambda *step: seen.append(step))
    rows = {name: read_rows(path) for name, path in paths.items()}
    assert [row["itemId"] for row in rows["arabicmmlu"]] == ["0", "1", "2", "3"]
    assert [len(row["scores"]) for row in rows["arabicmmlu"]] == [2, 3, 3, 2]
    assert all(row["extracted"] in "ABC" for row in rows["arabicmmlu"])
    assert [row["gold"] for row in rows["acva-all"]] == ["نعم", "لا", "نعم", "لا", "نعم"]
    assert {row["protocol"].rsplit("-", 1)[0] for row in rows["acva-all"]} == {"acegpt-generation-0shot"}
    assert seen[-1] == ("acva-all", 5, 5)
    assert [step for step in seen if step[0] == "arabicmmlu"][-1] == ("arabicmmlu", 4, 4)
    scores = score_benchmarks(rows)["benchmarks"]
    assert (scores["arabicmmlu"]["items"], scores["acva-all"]["metric"]) == (4, "macroF1")


def test_letter_loglikelihoods_agree_with_transformers(model: Path, data: Path, tmp_path: Path) -> None:
    paths = evaluate_model(model, REQUESTS[:1], data, tmp_path, batch_size=4)
    questions = plan(REQUESTS[0], data).questions
    for row, question in zip(read_rows(paths["arabicmmlu"]), questions, strict=True):
        letters = "ABCDE"[: len(question.item.choices)]
        expected = direct_letter_scores(model, question.prompt, letters)
        assert row["scores"] == pytest.approx(expected, abs=1e-4)
        assert row["extracted"] == letters[expected.index(max(expected))]


def test_responses_are_the_models_greedy_text(model: Path, data: Path, tmp_path: Path) -> None:
    paths = evaluate_model(model, REQUESTS[1:], data, tmp_path, batch_size=1)
    for row, question in zip(read_rows(paths["acva-all"]), plan(REQUESTS[1], data).questions, strict=True):
        assert row["response"] == direct_response(model, question.prompt, 20)


def test_a_repetition_penalty_in_the_models_own_settings_does_not_change_answers(model: Path, data: Path, tmp_path: Path) -> None:
    plain = evaluate_model(model, REQUESTS[1:], data, tmp_path / "plain", batch_size=1)["acva-all"]
    other = tiny_model(tmp_path / "penalised", seed=1)
    settings = json.loads((other / "generation_config.json").read_text())
    settings |= {"repetition_penalty": 5.0, "max_new_tokens": 3, "do_sample": True, "temperature": 2.0}
    write(other / "generation_config.json", json.dumps(settings))
    penalised = evaluate_model(other, REQUESTS[1:], data, tmp_path / "rows", batch_size=1)["acva-all"]
    assert [row["response"] for row in read_rows(penalised)] == [row["response"] for row in read_rows(plain)]


def test_a_rerun_is_equal_byte_for_byte(model: Path, data: Path, tmp_path: Path) -> None:
    first = evaluate_model(model, REQUESTS, data, tmp_path / "one", batch_size=2)
    again = evaluate_model(model, REQUESTS, data, tmp_path / "two", batch_size=2)
    assert all(first[name].read_bytes() == again[name].read_bytes() for name in first)


def test_a_rerun_goes_on_with_the_next_benchmark(model: Path, data: Path, tmp_path: Path) -> None:
    evaluate_model(model, REQUESTS[:1], data, tmp_path, batch_size=2)
    done: list[str] = []
    evaluate_model(model, REQUESTS, data, tmp_path, batch_size=2, on_progress=lambda name, *_: done.append(name))
    assert set(done) == {"acva-all"}


def test_another_model_never_gets_the_first_ones_answers(model: Path, data: Path, tmp_path: Path) -> None:
    """lm-eval's own cache would hand them over."""
    other = tiny_model(tmp_path / "b", seed=2)
    assert fingerprint(other) != fingerprint(model)
    first = read_rows(evaluate_model(model, REQUESTS[:1], data, tmp_path / "rows")["arabicmmlu"])
    second = read_rows(evaluate_model(other, REQUESTS[:1], data, tmp_path / "rows")["arabicmmlu"])
    assert [row["promptHash"] for row in first] == [row["promptHash"] for row in second]
    assert [row["scores"] for row in first] != [row["scores"] for row in second]


def test_the_shots_asked_for_are_in_the_prompt(model: Path, data: Path, tmp_path: Path) -> None:
    asked = BenchmarkRequest("acva-all", few_shot=2)
    prompts = [question.prompt for question in plan(asked, data).questions]
    assert all(prompt.count("إجابة: ") == 2 and "جملة 91" in prompt for prompt in prompts)
    none = evaluate_model(model, REQUESTS[1:], data, tmp_path / "none")["acva-all"]
    two = evaluate_model(model, [asked], data, tmp_path / "two")["acva-all"]
    assert read_rows(two)[0]["promptHash"] != read_rows(none)[0]["promptHash"]
    assert [row["response"] for row in read_rows(two)] != [row["response"] for row in read_rows(none)]


def test_prompts_longer_than_the_context_are_marked(data: Path, tmp_path: Path) -> None:
    short = tiny_model(tmp_path / "short", seed=1, context=64)
    rows = evaluate_model(short, REQUESTS, data, tmp_path / "rows")
    assert all(row["truncated"] for path in rows.values() for row in read_rows(path))
    with pytest.raises(UsageError, match="ContextTooShort"):
        evaluate_model(tiny_model(tmp_path / "tiny", seed=1, context=16), REQUESTS[1:], data, tmp_path / "none")


def test_missing_data_is_found_before_the_weights_are_read(data: Path, tmp_path: Path) -> None:
    broken = tiny_model(tmp_path / "broken", seed=1)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(NoInputError, match=r"exam_test\.jsonl"):
        evaluate_model(broken, [*REQUESTS, BenchmarkRequest("exams-ar")], data, tmp_path / "rows")
    with pytest.raises(DataError, match="ModelUnreadable"):
        evaluate_model(broken, REQUESTS, data, tmp_path / "rows")
    assert not list((tmp_path / "rows").glob("*"))


def test_a_folder_without_a_model_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"ModelNotFound.*no config\.json"):
        evaluate_model(tmp_path, REQUESTS, data, tmp_path / "rows")


def test_beavertails_is_judged_by_the_callers_judge(data: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}"
    chat = tiny_model(tmp_path / "chat", seed=1, context=640, chat_template=template)
    prompts = [{"prompt": f"{text}؟", "category": "privacy"} for text in SENTENCES[:2]]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in prompts)
    write(data / "Ar-BeaverTails" / "Ar-BeaverTails-Evaluation.jsonl", lines)
    request = [BenchmarkRequest("ar-beavertails")]
    with pytest.raises(UsageError, match="JudgeRequired"):
        evaluate_model(chat, request, data, tmp_path / "rows")

    def judge(pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        assert [prompt for prompt, _ in pairs] == [row["prompt"] for row in prompts]
        return [{"judgement": {"harmlessness": 9, "helpfulness": 4}, "tokens": 30}, {"judgement": None, "tokens": 20}]

    rows = read_rows(evaluate_model(chat, request, data, tmp_path / "rows", judge=judge, batch_size=1)["ar-beavertails"])
    assert [(row["judgement"], row["tokens"]) for row in rows] == [({"harmlessness": 9, "helpfulness": 4}, 30), (None, 20)]
    assert rows[0]["response"] == direct_response(chat, f"<s>{SENTENCES[0]}؟", 512)


def direct_bits(model: Any, tokenizer: Any, text: str, length: int) -> float:
    import torch

    tokens, total = tokenizer(text)["input_ids"], 0.0
    for begin in range(0, len(tokens), length):
        window = [tokenizer.bos_token_id, *tokens[begin : begin + length]]
        with torch.inference_mode():
            logs = torch.log_softmax(model(torch.tensor([window])).logits[0].float(), -1)
        total -= sum(float(logs[n - 1, window[n]]) for n in range(1, len(window)))
    return total / math.log(2)


def test_bits_per_byte_agree_with_a_direct_computation(model: Path) -> None:
    texts = [("a", SENTENCES[0]), ("a", " ".join(SENTENCES)), ("empty", ""), ("b", "x")]
    loaded = load_model(model, "cpu")
    rows = list(bits_per_byte(model, texts, max_length=7, batch_size=3))
    assert [(row["id"], row["bytes"]) for row in rows] == [(name, len(text.encode())) for name, text in texts]
    assert [row["bits"] for row in rows] == pytest.approx([direct_bits(*loaded, text, 7) for _, text in texts], abs=1e-3)
    assert rows == list(bits_per_byte(model, texts, max_length=7, batch_size=3))
