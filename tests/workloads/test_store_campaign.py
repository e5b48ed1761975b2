"""Some schedules of the campaign (`make store-campaign`) on a real S3 server."""

from collections.abc import Iterator

import pytest
from tests.workloads.pipeline import differing
from tests.workloads.store_campaign import Campaign, campaign

SCHEDULES = range(1, 3)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with campaign(tmp_path_factory.mktemp("campaign")) as running:
        yield running


@pytest.fixture(scope="module")
def quiet(shared: Campaign) -> dict[str, object]:
    return shared.run(0)[0]


@pytest.mark.parametrize("number", SCHEDULES)
def test_a_faulty_way_to_the_store_and_killed_workers_change_nothing(number: int, shared: Campaign, quiet: dict[str, object]):
    held, said = shared.run(number)
    print(said)
    assert differing(held, quiet) == []
