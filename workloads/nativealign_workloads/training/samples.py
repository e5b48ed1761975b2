"""The samples of a run by their global number: the mix's order over the shards' rows. `loop` reads them."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from nativealign_workloads.errors import UsageError
from nativealign_workloads.training.mix import Mix, Source
from nativealign_workloads.training.packing import Sample, Shard


class Rows:
    """The rows of several shards as one sequence."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        if len({shard.sequence_length for shard in shards}) != 1:
            raise UsageError("SequenceLengths", "all shards of a run need one sequence length")
        self._shards = [shard for shard in shards if len(shard)]
        self._starts = [0, *accumulate(map(len, self._shards))]
        self.sequence_length = shards[0].sequence_length

    def __len__(self) -> int:
        return self._starts[-1]

    def sample(self, row: int) -> Sample:
        number = bisect_right(self._starts, row) - 1
        return self._shards[number].sample(row - self._starts[number])


class MixedSamples:
    """Global sample n of a mix. `shards` maps each source's name to its shards, which all share one length."""

    def __init__(self, mix: Mix, shards: Mapping[str, Sequence[Shard]]) -> None:
        self.mix = mix
        self._rows = {source.name: Rows(shards[source.name]) for source in mix.sources}
        for source in mix.sources:
            if len(self._rows[source.name]) != source.samples:
                found = len(self._rows[source.name])
                raise UsageError("MixCounts", f"source {source.name}: {source.samples} rows announced, {found} found")
        lengths = {rows.sequence_length for rows in self._rows.values()}
        if len(lengths) != 1:
            raise UsageError("SequenceLengths", f"the mix has sequence lengths {sorted(lengths)}")
        self.sequence_length = lengths.pop()

    def sample(self, n: int) -> Sample:
        place = self.mix.locate(n)
        return self._rows[place.source].sample(place.row)


def single_source(shards: Sequence[Shard], seed: int, name: str = "pairs") -> MixedSamples:
    """All rows of `shards`, each epoch in a new order, without end."""
    return MixedSamples(Mix([Source(name, len(Rows(shards)), 1.0)], seed), {name: shards})
