"""The processes of a training: their parts of a batch, their device; two of them learn in test_distillation_loop."""

from __future__ import annotations

import pytest
import torch

from gestalt.data.ranks import Ranks, joined
from gestalt.errors import ConfigError


def test_parts_cover_everything_once() -> None:
    numbers = list(range(12))
    assert [number for rank in range(3) for number in numbers[Ranks(rank, 3).part(12)]] == numbers
    assert Ranks().part(12) == slice(0, 12)


def test_one_process_alone_is_the_first_and_means_are_its_values() -> None:
    with joined("cpu") as (ranks, device):
        assert (ranks, device) == (Ranks(0, 1), torch.device("cpu"))
        assert ranks.is_first
        values = torch.tensor([1.0, 2.0])
        assert ranks.mean(values) is values
        assert ranks.any(True, device)
        assert not ranks.any(False, device)
    assert not Ranks(1, 2).is_first


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="--device must be auto"), joined("gpu"):
        pass
