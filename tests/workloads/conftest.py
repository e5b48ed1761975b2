"""A place to run jobs in."""

from pathlib import Path

import pytest
from tests.workloads.pipeline import make_corpus


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a corpus of 60 records."""
    make_corpus(tmp_path / "corpus", 60)
    return tmp_path
