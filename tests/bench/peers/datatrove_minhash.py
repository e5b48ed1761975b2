"""datatrove's MinHash pipeline: signatures, buckets, clusters, filter, in one task each. Prints the seconds of each stage.

Arguments: corpus (gzip JSON lines), folder for the documents that are kept, and `whitespace` for words between spaces instead of
those of its Arabic tokenizer.
"""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter

LANGUAGE = "arb_Arab"


def main(corpus: str, folder: str, words: str = "") -> None:
    config, seconds = MinhashConfig(), {}
    reader = JsonlReader(str(Path(corpus).parent), glob_pattern=Path(corpus).name)
    signature = MinhashDedupSignature(f"{folder}/signatures", config, LANGUAGE)
    if words == "whitespace":
        signature.word_tokenizer = SimpleNamespace(word_tokenize=str.split)
    stages = {
        "signatures": ([reader, signature], 1),
        "buckets": ([MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)], config.num_buckets),
        "clusters": ([MinhashDedupCluster(f"{folder}/buckets", f"{folder}/remove", config=config)], 1),
        "filter": ([reader, MinhashDedupFilter(f"{folder}/remove"), JsonlWriter(f"{folder}/kept")], 1),
    }
    for name, (pipeline, tasks) in stages.items():
        began = time.monotonic()
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=f"{folder}/logs/{name}").run()
        seconds[name] = round(time.monotonic() - began, 2)
    (Path(folder) / "seconds.json").write_text(json.dumps(seconds))


main(*sys.argv[1:])
