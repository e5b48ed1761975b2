"""How a digest is kept from being removed before any status names it: inspect claims it first, and looks at it second.

Not in a folder of this machine: `nativealign gc` and `nativealign run` exclude each other there.
"""

from nativealign_workloads.context import Context

CLAIM = "claimed"
"""Name of the object in a digest's folder whose age tells when it was claimed last."""


def claim(context: Context, prefix: str) -> None:
    """Tells gc that a digest is in use from now on. What is found below it afterwards stays."""
    if not context.job.store_folder:
        context.store.write(f"{prefix}/{CLAIM}", context.writer.encode())
