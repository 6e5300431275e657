from __future__ import annotations

import pytest

from gestalt.data.ranks import Ranks
from gestalt.errors import ConfigError
from gestalt.training.parts import deal_out


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (1, 4), (2, 2), (4, 1)])
def test_parts_of_all_processes_cover_the_batch_once(processes: int, accumulate: int) -> None:
    seen = []
    for rank in range(processes):
        parts = deal_out(8, accumulate, Ranks(rank, processes), section="guided")
        assert len(parts.own) == accumulate
        seen += [place for part in parts.own for place in parts.places(part)]
    assert seen == list(range(8))


def test_unequal_parts_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"guided\.batch_size must be a multiple of 6: .*accumulate = 3 .*Got: 8"
    ):
        deal_out(8, 3, Ranks(0, 2), section="guided")
