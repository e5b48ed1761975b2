"""Starts phases without the ten seconds that torch takes to import: imports once, then forks for each order.

Run by `pipeline.Starter` as a process with pipes. An order is a line of JSON {arguments, environment, output, fault}, or
{continue: pid} for a process that has stopped itself; the answer is {pid, code}, code null for one that stopped.
"""

import gc
import importlib
import json
import os
import signal
import sys
from typing import Any

PRELOADED = (
    "deepspeed",
    "torch._dynamo",
    "transformers.models.llama.modeling_llama",
    "rensa",
    "scipy.sparse.csgraph",
    "minio",
    "lm_eval.models.huggingface",
)


def serve() -> None:
    from nativealign_workloads.__main__ import PHASES
    from nativealign_workloads.training.deepspeed_env import prepare_imports

    prepare_imports()
    for name in (*PRELOADED, *{f"nativealign_workloads.{target.partition(':')[0]}" for target in PHASES.values()}):
        importlib.import_module(name)
    gc.freeze()  # or each fork looks through all that was imported
    for line in sys.stdin:
        order = json.loads(line)
        pid = order.get("continue") or _start(order)
        if "continue" in order:
            os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, os.WUNTRACED)
        code = None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
        print(json.dumps({"pid": pid, "code": code}), flush=True)


def _start(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _run(order)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(order: dict[str, Any]) -> int:
    from faults.sitecustomize import arm

    from nativealign_workloads.__main__ import main

    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ |= order["environment"]
    arm(order["fault"])
    return main(order["arguments"])


if __name__ == "__main__":
    serve()
