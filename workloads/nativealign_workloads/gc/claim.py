"""How a digest is kept from being removed before any status names it: inspect claims it first, and looks at it second."""

import uuid

from nativealign_workloads.store import ObjectStore

CLAIM = "claimed"
"""Name of the object in a digest's folder whose age tells when it was claimed last."""


def claim(store: ObjectStore, prefix: str) -> None:
    """Tells gc that a digest is in use from now on. What is found below it afterwards stays."""
    store.write(f"{prefix}/{CLAIM}", uuid.uuid4().hex.encode())
