"""Texts as a report shows them. Used by rewrite and assess; the report knows a text that was cut by its end."""

import re

CHARACTERS = 1500
"""Length at which a text is cut."""

CUT = " …"
"""End of a text that was cut."""


def shown(text: str) -> str:
    """The text, or its beginning up to the end of a word."""
    return text if len(text) <= CHARACTERS else re.sub(r"\s+\S*$", "", text[:CHARACTERS]) + CUT
