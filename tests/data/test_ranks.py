"""The processes of a training: their parts of a batch, their device; two of them learn in test_distillation_loop."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import distributed

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


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_with_an_error_does_not_wait_for_the_others(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    calls = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "init_process_group", lambda backend: calls.append(backend))
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: calls.append("left"))
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    with contextlib.suppress(ConfigError), joined("cpu") as (ranks, _):
        assert ranks == Ranks(1, 2)
        if fails:
            raise ConfigError("a file of this process is broken")
    assert calls == (["gloo"] if fails else ["gloo", "left"])


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="--device must be auto"), joined("gpu"):
        pass
