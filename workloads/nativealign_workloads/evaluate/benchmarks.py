"""The benchmarks an EvalJob may name: files, protocol, default shots. Called by tasks.py and by the step's inspection.

Enters: a name of the API's enum and a folder. Leaves: `BenchmarkData`, or an error that names the missing file;
`check_data` and `load` need no model, so a wrong folder is found before any weight is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nativealign_workloads.errors import NoInputError, UsageError
from nativealign_workloads.evaluate import loaders, protocols, subjects
from nativealign_workloads.evaluate.loaders import BenchmarkData
from nativealign_workloads.evaluate.protocols import Protocol


@dataclass(frozen=True)
class Benchmark:
    """`folder` is looked for in the data folder; `files` lists what must lie there, alternatives grouped.

    `metric` is accuracy, macroF1, categoryMean or judgeScore; greater is better in all of them.
    """

    name: str
    folder: str
    files: tuple[tuple[str, ...], ...]
    load_folder: Callable[[Path], BenchmarkData]
    protocol: Protocol
    few_shot: int
    metric: str
    needs_id_list: bool = False


@dataclass(frozen=True)
class BenchmarkRequest:
    """One entry of an EvalJob's `benchmarks`, its data already local. None means the benchmark's own default."""

    name: str
    few_shot: int | None = None
    id_list: Path | None = None
    data_dir: Path | None = None


_ACVA_FILES = (("difficulty-easy-TF_test.jsonl",), ("difficulty-easy-TF_dev.jsonl",))
_MMLU_FILES = tuple((loaders.mmlu_file(subject, split),) for split in ("test", "dev") for subject in subjects.MMLU)

BENCHMARKS: dict[str, Benchmark] = {
    b.name: b
    for b in (
        Benchmark(
            "arabicmmlu",
            "ArabicMMLU",
            (("ArabicMMLU.csv",),),
            loaders.load_arabicmmlu,
            protocols.ARABICMMLU,
            0,
            "accuracy",
        ),
        Benchmark(
            "exams-ar",
            "EXAMS_Arabic",
            (("exam_test.jsonl",), ("exam_dev.jsonl",)),
            loaders.load_exams,
            protocols.EXAMS,
            5,
            "accuracy",
        ),
        Benchmark("acva-all", "ArabicCulture", _ACVA_FILES, loaders.load_acva, protocols.ACVA, 0, "macroF1"),
        Benchmark("acva-clean", "ArabicCulture", _ACVA_FILES, loaders.load_acva, protocols.ACVA, 0, "macroF1", True),
        Benchmark(
            "aratrust",
            "AraTrust",
            (loaders.ARATRUST_FILES,),
            loaders.load_aratrust,
            protocols.ARATRUST,
            0,
            "accuracy",
        ),
        Benchmark("mmlu", "MMLU", _MMLU_FILES, loaders.load_mmlu, protocols.MMLU, 5, "accuracy"),
        Benchmark("mmlu-ar", "MMLUArabic", _MMLU_FILES, loaders.load_mmlu, protocols.MMLU_AR, 5, "categoryMean"),
        Benchmark(
            "ar-beavertails",
            "Ar-BeaverTails",
            (loaders.BEAVERTAILS_FILES,),
            loaders.load_beavertails,
            protocols.BEAVERTAILS,
            0,
            "judgeScore",
        ),
    )
}


def benchmark(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise UsageError("UnknownBenchmark", f"benchmark {name!r} is unknown", f"one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def shots_of(request: BenchmarkRequest) -> int:
    """The shots asked for, or the benchmark's default; more than the protocol has is refused."""
    chosen = benchmark(request.name)
    shots = chosen.few_shot if request.few_shot is None else request.few_shot
    if not 0 <= shots <= chosen.protocol.max_shots:
        raise UsageError(
            "TooManyShots",
            f"benchmark {request.name}: fewShot is {shots}",
            f"this benchmark's protocol has 0 to {chosen.protocol.max_shots} shots",
        )
    return shots


def data_folder(chosen: Benchmark, data_dir: Path) -> Path:
    """The benchmark's folder in `data_dir`, or `data_dir` itself where it holds the files directly."""
    named = data_dir / chosen.folder
    return data_dir if not named.is_dir() and not _missing(chosen, data_dir) else named


def check_data(request: BenchmarkRequest, data_dir: Path) -> Path:
    """Returns the benchmark's folder; raises NoInputError for the first file that is missing or empty."""
    chosen = benchmark(request.name)
    folder = data_folder(chosen, request.data_dir or data_dir)
    if missing := _missing(chosen, folder):
        names = " or ".join(missing)
        raise NoInputError("BenchmarkFileMissing", f"benchmark {chosen.name}: no file {names} in {folder}", _hint(chosen))
    if chosen.needs_id_list and request.id_list is None:
        raise UsageError("IdListRequired", f"benchmark {chosen.name} needs idList", "a text file, one item id per line")
    if request.id_list is not None and not request.id_list.is_file():
        raise NoInputError("IdListMissing", f"benchmark {chosen.name}: no id list {request.id_list}")
    return folder


def load(request: BenchmarkRequest, data_dir: Path) -> BenchmarkData:
    """The benchmark's items, restricted to the id list if one is given. Raises NoInputError or DataError."""
    data = benchmark(request.name).load_folder(check_data(request, data_dir))
    return loaders.load_id_list(request.id_list, data) if request.id_list else data


def _missing(chosen: Benchmark, folder: Path) -> Sequence[str]:
    def present(name: str) -> bool:
        return (folder / name).is_file() and (folder / name).stat().st_size > 0

    return next((group for group in chosen.files if not any(map(present, group))), ())


def _hint(chosen: Benchmark) -> str:
    return f"put the published files into a folder {chosen.folder} of the benchmark data"
