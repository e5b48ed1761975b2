"""Reading manifests: every mistake at once, each with its line, its path and a way out."""

from pathlib import Path

import pytest

from nativealign_api.align import AlignJobSpec
from nativealign_api.base import parse_count
from nativealign_api.common import Budget
from nativealign_api.loader import ManifestError, load_jobs, load_manifests

GOOD = """\
apiVersion: nativealign.dev/v1alpha1
kind: AlignJob
metadata:
  name: web
spec:
  corpora:
    - name: web
      uri: s3://corpora/web/*.jsonl.zst
  expert:
    rules: {}
"""


def _problems(folder: Path, text: str) -> list[str]:
    (folder / "job.yaml").write_text(text)
    with pytest.raises(ManifestError) as caught:
        load_jobs([folder / "job.yaml"])
    return [str(problem).removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_a_good_manifest_is_read(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(GOOD)
    [(job, path)] = load_jobs([tmp_path / "job.yaml"])
    assert (job.reference, job.metadata.namespace, path.name) == ("AlignJob/web", "default", "job.yaml")


def test_a_list_is_its_items(tmp_path: Path) -> None:
    """As `kubectl get -o yaml` prints several objects; lines are those of the file."""
    items = "".join(
        f"- {GOOD.replace('name: web', f'name: {name}', 1).replace(chr(10), chr(10) + '  ').rstrip()}\n" for name in "ab"
    )
    text = f"apiVersion: v1\nkind: List\nitems:\n{items}"
    (tmp_path / "job.yaml").write_text(text)
    assert [job.reference for job, _ in load_jobs([tmp_path / "job.yaml"])] == ["AlignJob/a", "AlignJob/b"]
    assert _problems(tmp_path, f"{text}    suspend: 1\n") == ["job.yaml:24: spec.suspend: 1: input should be a valid boolean"]
    [problem] = _problems(tmp_path, "apiVersion: v1\nkind: List\nitems: none\n")
    assert problem.startswith('job.yaml:2: kind: "List" is not one of')


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("  paralelism: 4", "job.yaml:11: spec.paralelism: unknown field. Did you mean parallelism?"),
        ("  dedup: {mode: fuzzy}", 'job.yaml:11: spec.dedup.mode: "fuzzy" is not one of Exact, Fuzzy. Did you mean Fuzzy?'),
        ("  dedup:\n    fuzzy:\n      band: 1", "job.yaml:13: spec.dedup.fuzzy.band: unknown field. Did you mean bands?"),
        ('  parallelism: "4"', "job.yaml:11: spec.parallelism: '4': input should be a valid integer"),
        ("  parallelism: 0", "job.yaml:11: spec.parallelism: 0: input should be greater than or equal to 1"),
        ("  suspend: 1", "job.yaml:11: spec.suspend: 1: input should be a valid boolean"),
        ("  rewrite: {transformers: {}}", "job.yaml:5: spec: rewrite.transformers, rewrite.vllm and rewrite.openai need worker"),
        ("  heldOut: {documents: 1.5}", "job.yaml:11: spec.heldOut.documents: 1.5: input should be a valid integer"),
    ],
)  # fmt: skip
def test_a_mistake_is_shown_with_line_path_and_suggestion(tmp_path: Path, line: str, message: str) -> None:
    assert [problem.partition(", got")[0] for problem in _problems(tmp_path, f"{GOOD}{line}\n")] == [message]


def test_an_empty_choice_says_what_to_choose_from(tmp_path: Path) -> None:
    [problem] = _problems(tmp_path, GOOD.replace("rules: {}", "openai:\n").replace("    openai:\n", "    {}\n"))
    assert problem == "job.yaml:9: spec.expert: exactly one of rules, openai, transformers, vllm must be set; found none"


def test_all_mistakes_of_all_documents_come_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("name: web\n      uri", "nam: web\n      uri")
        + "  paralelism: 4\n---\n"
        + GOOD.replace("AlignJob", "AlignJbo")
    )
    found = _problems(tmp_path, text)
    assert [problem.split(": ")[0] for problem in found] == ["job.yaml:7", "job.yaml:7", "job.yaml:11", "job.yaml:14"]
    assert found[-1].endswith("Did you mean AlignJob?")


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    [problem] = _problems(tmp_path, GOOD + "  parallelism: 2\n  parallelism: 4\n")
    assert problem == "job.yaml:12: not YAML: key 'parallelism' is given twice"


def test_two_jobs_of_one_name_are_refused(tmp_path: Path) -> None:
    [problem] = _problems(tmp_path, GOOD + "---\n" + GOOD)
    assert problem == "job.yaml:1: metadata.name: AlignJob/web is given twice"


@pytest.mark.parametrize("text", ["a: [", "\tx: 1", "a: !secret x", "a: .inf"])
def test_what_is_not_yaml_for_kubectl_is_not_yaml(text: str) -> None:
    with pytest.raises(ManifestError, match="not YAML"):
        load_manifests(text, "job.yaml")


# What kubectl makes of them is compared in tests/contract/test_contract_agreement.py.
@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-5", 1e-5), ("1e3", 1000), ("yes", True), ("off", False), ("017", 15), ("0x1F", 31), ("1_000", 1000), ("~", None),
     ('"1e-5"', "1e-5"), ("1:30", "1:30"), ("2026-01-01", "2026-01-01")],
)  # fmt: skip
def test_scalars_are_those_of_kubectl(text: str, value: object) -> None:
    found = load_manifests(f"value: {text}", "x.yaml")[0].value["value"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(("text", "count"), [("0", 0), ("96000", 96_000), ("96k", 96_000), ("1.5B", 1_500_000_000), ("0.001k", 1)])
def test_counts_may_have_a_suffix(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "1.5", "-1", "1K", "1 k", "1.0001k", "1e3", "400M\n"])
def test_other_strings_are_no_counts(text: str) -> None:
    with pytest.raises(ValueError, match="must be a whole number"):
        parse_count(text)


def test_money_is_exact() -> None:
    prices = {"promptUsdPerMillionTokens": "0.15", "completionUsdPerMillionTokens": 1}
    assert Budget.model_validate({"usd": "6000", **prices}) == Budget.model_validate({"usd": 6000, **prices})
    with pytest.raises(ValueError, match="must be a whole number, or a string with at most 4 decimals"):
        Budget.model_validate({"usd": 0.1, **prices})


def test_a_field_without_a_value_is_absent_and_an_unknown_one_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(GOOD + "  parallelism:\n  worker: null\n  resources: {nodeSelector: {pool: ~}}\n")
    [(job, _)] = load_jobs([tmp_path / "job.yaml"])
    assert (job.spec.parallelism, job.spec.resources.node_selector) == (2, {})
    assert _problems(tmp_path, GOOD + "  paralelism:\n") == [
        "job.yaml:11: spec.paralelism: unknown field. Did you mean parallelism?"
    ]


def test_defaults_make_a_whole_spec() -> None:
    spec = AlignJobSpec.model_validate({"corpora": [{"name": "web", "uri": "web.jsonl"}], "expert": {"rules": {}}})
    assert (spec.seed.documents, spec.code_of_conduct.builtin, spec.dedup.mode) == (96_000, "ar-1", "Fuzzy")


def test_characters_that_yaml_forbids_are_told(tmp_path: Path) -> None:
    assert _problems(tmp_path, "a: b\x00c\n")[0].startswith("job.yaml:1: not YAML: ")


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))]
    (problem,) = _problems(tmp_path, "\n".join(lines))
    assert "more values than a manifest may have" in problem


def test_all_rules_that_an_object_breaks_are_told_at_once(tmp_path: Path) -> None:
    corpora = "corpora: [{name: web, uri: a}, {name: web, uri: b}]"
    text = f"apiVersion: nativealign.dev/v1alpha1\nkind: AlignJob\nmetadata: {{name: web}}\nspec:\n  {corpora}\n"
    text += "  expert: {rules: {}}\n  rewrite: {transformers: {}}\n"
    assert _problems(tmp_path, text) == [
        "job.yaml:4: spec: corpora must have different names",
        "job.yaml:4: spec: rewrite.transformers, rewrite.vllm and rewrite.openai need worker",
    ]


def test_a_spec_that_is_no_object_is_told_so(tmp_path: Path) -> None:
    text = "apiVersion: nativealign.dev/v1alpha1\nkind: AlignJob\nmetadata: {name: web}\nspec: 3\n"
    assert _problems(tmp_path, text) == ["job.yaml:4: spec: must be an object"]
