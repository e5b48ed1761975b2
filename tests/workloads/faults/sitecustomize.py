"""Sends a signal just before a process changes a file. Python imports this by its name where PYTHONPATH leads to its folder.

Called by tests alone: product code knows nothing of it. What a process does between two changes of files nobody else can see, so
a signal before each change is a signal at every moment that matters. Python announces the changes itself (PEP 578).
"""

import os
import re
import signal
import sys
from collections.abc import Mapping

PATHS = {"open": 0, "os.link": 1, "os.rename": 1, "os.remove": 0}
"""Events that change a folder or a file, and which of their arguments is the path."""


def arm(fault: Mapping[str, str]) -> None:
    """Watches the changes below FAULT_ROOT whose `event path` holds FAULT_PATTERN, and writes each into the file FAULT_LOG.

    Before the change number FAULT_AT (from 1; 0 for none) FAULT_SIGNAL goes to this process, or with FAULT_TO=leader to the one
    that leads its session.
    """
    root, pattern = fault["FAULT_ROOT"] + "/", re.compile(fault.get("FAULT_PATTERN", ""))
    log = os.open(fault["FAULT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    left, number = int(fault["FAULT_AT"]), signal.Signals[fault.get("FAULT_SIGNAL", "SIGKILL")]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        change = _change(event, arguments)
        if not change.partition(" ")[2].startswith(root) or not pattern.search(change):
            return
        os.write(log, f"{change.replace(root, '')}\n".encode())
        left -= 1
        if left == 0:
            os.kill(os.getsid(0) if fault.get("FAULT_TO") == "leader" else os.getpid(), number)

    sys.addaudithook(watch)


def _change(event: str, arguments: tuple[object, ...]) -> str:
    """`event path`; "" for what changes nothing."""
    path = arguments[PATHS[event]] if event in PATHS else None
    if not isinstance(path, str | os.PathLike) or (event == "open" and not set(str(arguments[1])) & set("wxa+")):
        return ""
    return f"{event} {os.path.abspath(path)}"


if "FAULT_ROOT" in os.environ:
    arm(os.environ)
