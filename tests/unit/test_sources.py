"""URIs, patterns and shard plans: which files a corpus means, and which shard reads which record."""

import json
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.specs import parse

from nativealign_api.align import Chunking
from nativealign_api.common import Corpus
from nativealign_api.plan import plan
from nativealign_api.resolved import resolve
from nativealign_workloads.context import Context
from nativealign_workloads.errors import NoInputError
from nativealign_workloads.inspection.corpora import expected_chunks, plan_shards, rewrite_shards
from nativealign_workloads.progress import Progress
from nativealign_workloads.sources import SourceFile, files, matches, open_source, required_files, split_pattern
from nativealign_workloads.store import LocalStore

NAMES = st.text("ab.", min_size=1, max_size=3)
KEYS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


# Patterns


@pytest.mark.parametrize(
    ("path", "folder", "pattern"),
    [
        ("web/*.jsonl", "web/", "*.jsonl"),
        ("web/2024/part-?.gz", "web/2024/", "part-?.gz"),
        ("web/**/*.gz", "web/", "**/*.gz"),
        ("*/web/a.gz", "", "*/web/a.gz"),
        ("web/", "web/", "**"),
        ("web", "", "web"),
        ("web/a.jsonl", "web/", "a.jsonl"),
        ("", "", "**"),
        ("/data/[ar]/*.gz", "/data/[ar]/", "*.gz"),
    ],
)
def test_a_path_is_split_before_its_first_wildcard(path: str, folder: str, pattern: str) -> None:
    assert split_pattern(path) == (folder, pattern)


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("*.jsonl", ["a.jsonl", ".jsonl"], ["a.jsonl.gz", "b/a.jsonl", "a/.jsonl"]),
        ("?.gz", ["a.gz"], ["ab.gz", ".gz", "a/b.gz"]),
        ("a?b", ["axb"], ["a/b", "ab"]),
        ("**", ["a", "a/b", "a/b/c"], []),
        ("**/*.gz", ["a.gz", "x/a.gz", "x/y/a.gz"], ["a.gz/b"]),
        ("x/**", ["x/a", "x/y/a"], ["x", "xy/a"]),
        ("x/**/a", ["x/a", "x/y/a", "x/y/z/a"], ["xa", "x/ya"]),
        ("web", ["web", "web/a", "web/x/a"], ["web2", "web2/a", "x/web"]),
        ("part-[01].gz", ["part-[01].gz"], ["part-0.gz"]),
        ("[01]*.gz", ["[01].gz", "[01]x.gz"], ["0.gz"]),
        ("a+(b).txt", ["a+(b).txt"], ["aa(b).txt"]),
    ],
)
def test_wildcards_match_as_in_a_shell(pattern: str, fitting: list[str], others: list[str]) -> None:
    assert [key for key in fitting if not matches(key, pattern)] == []
    assert [key for key in others if matches(key, pattern)] == []


@given(KEYS)
def test_a_path_without_wildcards_names_itself_and_everything_below_it(key: str) -> None:
    assert matches(key, key)
    assert matches(f"{key}/below", key)
    assert not matches(f"{key}x", key)
    assert matches(key, "**")
    assert matches(f"x/{key}", "x/**")


@given(KEYS, st.data())
def test_a_star_or_question_mark_never_crosses_folders(key: str, data: st.DataObject) -> None:
    names = key.split("/")
    wild = [data.draw(st.sampled_from([name, "*", "?" * len(name), f"{name[0]}*"])) for name in names]
    assert matches(key, "/".join(wild))
    assert not matches(f"{key}/b", "/".join([*wild[:-1], "*"]))
    assert matches(key, "/".join([*wild[:-1], "**"]))


@given(KEYS, st.lists(st.sampled_from(["a", "b", "*", "?", "a*", "*b", "*.*"]), min_size=1, max_size=4).map("/".join))
def test_single_stars_agree_with_the_standard_library(key: str, pattern: str) -> None:
    """PurePosixPath.match is the same for relative patterns of as many parts; `.` would be folded away."""
    if "." not in key.split("/") and ".." not in key.split("/") and set("*?") & set(pattern):
        same_depth = key.count("/") == pattern.count("/")
        assert matches(key, pattern) == (same_depth and PurePosixPath(key).match(pattern))


@given(st.lists(st.sampled_from(["web", "x", "*.gz", "**", "a?", "[ab]"]), min_size=1, max_size=5).map("/".join), st.booleans())
def test_splitting_loses_nothing(path: str, slash: bool) -> None:
    folder, pattern = split_pattern(path + "/" * slash)
    assert not set("*?") & set(folder)
    assert folder == "" or folder.endswith("/")
    assert (
        folder + pattern == path
        or (slash and (folder, pattern) == (f"{path}/", "**"))
        or (slash and folder + pattern == f"{path}/")
    )


# Folders


def context(base: Path, store_folder: Path | None, tmp: Path, secrets: Path | None = None, **spec: object) -> Context:
    """A context of inspect for a job whose manifest lies in `base`."""
    job = parse("AlignJob", {"corpora": [{"name": "web", "uri": "x"}], "expert": {"rules": {}}, **spec})
    step = plan("AlignJob", job.spec, job.status.pinned).steps[0]
    folder = str(store_folder) if store_folder else None
    resolved = resolve(job, step, step.phases[0], store_folder=folder, base_directory=str(base) if folder else None)
    return Context(
        resolved,
        LocalStore(tmp / "store"),
        0,
        "writer",
        tmp,
        tmp / "models",
        secrets,
        Progress(None, step="inspect", phase="list", index=0),
    )


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("web/", ["a.jsonl", "deep/b.jsonl"]),
        ("web", ["a.jsonl", "deep/b.jsonl"]),
        ("./web", ["a.jsonl", "deep/b.jsonl"]),
        ("../manifests/web/*.jsonl", ["a.jsonl"]),
        ("web/**/*.jsonl", ["a.jsonl", "deep/b.jsonl"]),
        ("web/a.jsonl", ["a.jsonl"]),
        ("web/?.jsonl", ["a.jsonl"]),
        ("*/a.jsonl", ["web/a.jsonl"]),
    ],
)
def test_a_uri_means_its_visible_files_with_content(tmp_path: Path, uri: str, found: list[str]) -> None:
    base = tmp_path / "manifests"
    for name in ("web/a.jsonl", "web/deep/b.jsonl", "web/.hidden/c.jsonl", "web/_SUCCESS", "web2/d.jsonl"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text("x")
    (base / "web/empty.jsonl").touch()
    for given_uri in (uri, f"file://{base / uri}"):
        assert [file.key for file in files(open_source(context(base, tmp_path, tmp_path), given_uri))] == found


def test_what_is_not_there_is_named_with_the_folder_that_was_searched(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="InputEmpty") as caught:
        required_files(open_source(context(tmp_path / "manifests", tmp_path, tmp_path), "../web/*.gz"))
    assert f"../web/*.gz: no file with any content in {tmp_path}/web" in str(caught.value)


def test_an_input_bucket_is_read_with_the_secret_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
        (tmp_path / "secrets/store").mkdir(parents=True, exist_ok=True)
        (tmp_path / "secrets/store" / name).write_text("value")
    store = {"bucket": "results", "endpoint": "http://127.0.0.1:1"}
    source = open_source(context(tmp_path, None, tmp_path, tmp_path / "secrets", store=store), "s3://corpora/web/*.gz")
    assert (str(source.store), source.folder, source.pattern) == ("s3://corpora/ at http://127.0.0.1:1", "web/", "*.gz")


# Shard plans

LISTINGS = st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=12), min_size=1, max_size=3)


def listed(sizes: list[list[int]]) -> tuple[list[Corpus], list[list[SourceFile]]]:
    corpora = [Corpus(name=f"c{number}", uri=f"c{number}/") for number in range(len(sizes))]
    return corpora, [[SourceFile(f"{n:03d}.jsonl", size, f"tag{n}") for n, size in enumerate(own)] for own in sizes]


@given(LISTINGS, st.integers(1, 9), st.integers(0, 200))
def test_every_record_of_every_file_belongs_to_one_unit_of_one_shard(sizes: list[list[int]], shards: int, ordinal: int) -> None:
    given_corpora, listings = listed(sizes)
    planned = plan_shards(given_corpora, listings, shards)
    assert len(planned) == shards
    owners = sorted(
        (unit["corpus"], unit["key"]) for units in planned for unit in units if ordinal % unit["stride"][1] == unit["stride"][0]
    )
    assert owners == sorted((corpus.name, file.key) for corpus, own in zip(given_corpora, listings, strict=True) for file in own)


@given(LISTINGS, st.integers(1, 9), st.randoms(use_true_random=False))
def test_a_shard_plan_depends_on_what_is_listed_and_not_on_its_order(sizes: list[list[int]], shards: int, random) -> None:
    given_corpora, listings = listed(sizes)
    shuffled = [random.sample(own, len(own)) for own in listings]
    assert json.dumps(plan_shards(given_corpora, listings, shards)) == json.dumps(plan_shards(given_corpora, shuffled, shards))


@given(LISTINGS, st.integers(1, 9))
def test_no_shard_has_twice_its_fair_share(sizes: list[list[int]], shards: int) -> None:
    """List scheduling: at most the mean and the largest unit, and no unit is above the mean."""
    given_corpora, listings = listed(sizes)
    size = {(c.name, file.key): file.size for c, own in zip(given_corpora, listings, strict=True) for file in own}
    loads = [
        sum(size[unit["corpus"], unit["key"]] / unit["stride"][1] for unit in units)
        for units in plan_shards(given_corpora, listings, shards)
    ]
    assert max(loads) <= 2 * sum(size.values()) / shards * (1 + 1e-9)


@pytest.mark.parametrize(
    ("sharding", "documents", "shards"), [({}, 1, 1), ({}, 6000, 5), ({}, 10**9, 10_000), ({"shards": 3}, 6000, 3)]
)
def test_rewrite_has_shards_of_about_so_many_chunks(sharding: dict[str, int], documents: int, shards: int) -> None:
    rewrite = {"chunksPerShard": 3000}
    spec = {"corpora": [{"name": "web", "uri": "corpus/"}], "expert": {"rules": {}}, "rewrite": rewrite, "sharding": sharding}
    found = [{"expectedDocuments": documents, "expectedWords": documents * 350}]
    assert rewrite_shards(found, parse("AlignJob", spec).spec) == shards
    assert expected_chunks(6000, 6000 * 700, Chunking(max_tokens=512)) / 5 == pytest.approx(3000, rel=0.1)
