"""Some schedules of the campaign (`make store-campaign`) on a real S3 server."""

from collections.abc import Iterator

import pytest
from tests.workloads.pipeline import differing
from tests.workloads.store_campaign import EXPERTS, Campaign, campaign


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with campaign(tmp_path_factory.mktemp("campaign")) as running:
        yield running


@pytest.mark.parametrize(("number", "expert"), enumerate(EXPERTS, 1))
def test_a_faulty_way_to_the_store_and_killed_workers_change_nothing(number: int, expert: str, shared: Campaign):
    quiet, _ = shared.run(0, expert)
    held, said = shared.run(number, expert)
    print(said)
    assert differing(held, quiet) == []
