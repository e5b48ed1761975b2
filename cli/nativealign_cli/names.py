"""How users name jobs: `NAME` or `KIND/NAME`, the kind in any case, singular, plural or short."""

from nativealign_api.kinds import KINDS


def fits(reference: str, kind: str, name: str) -> bool:
    """Whether `kind/name`, the kind perhaps empty, means the job of that reference."""
    own_kind, _, own_name = reference.partition("/")
    entry = KINDS[own_kind]
    return own_name == name and kind.lower() in ("", entry.short, own_kind.lower(), entry.plural)
