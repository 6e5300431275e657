"""The processes of one training: each has a device and a part of the batch, and all have the same weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from gestalt.errors import ConfigError
from gestalt.runtime import choose_device

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of the training.

    Attributes:
        rank: From 0 to ``size`` - 1; the first one writes files.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """This process writes files and draws the bar."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """The part of ``n`` things, a multiple of ``size``, that is this process's."""
        own = n // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all processes; itself where there is one."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
            values /= self.size
        return values

    def gather(self, value: T) -> list[T]:
        """The value of every process in their order, for every process; plain values and tensors on the CPU."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process; all must ask together."""
        return bool(self.mean(torch.tensor(float(flag), device=device)) > 0)


@contextmanager
def joined(device: str, *, key: str = "--device") -> Iterator[tuple[Ranks, torch.device]]:
    """This process's place and device, among those that ``torchrun`` started; alone without it.

    Args:
        device: auto, cpu, cuda or cuda:N; with several processes their number in the machine chooses the GPU.
        key: What the device was given as, for the message.

    Raises:
        ConfigError: The device is unknown or not there, or one GPU is named for several processes.
    """
    chosen = choose_device(device, key=key)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(), chosen
        return
    if chosen.type != "cpu":
        if ":" in device:
            raise ConfigError(
                f"{key} must be auto, cpu or {chosen.type} with {size} processes. Got: {device!r}"
            )
        chosen = choose_device(f"{chosen.type}:{os.environ['LOCAL_RANK']}", key=key)
        torch.cuda.set_device(chosen)
    distributed.init_process_group("gloo" if chosen.type == "cpu" else "nccl")
    yield Ranks(distributed.get_rank(), distributed.get_world_size()), chosen
    # Not after an error: leaving waits for the others on GPUs, and they wait in an exchange that this process will
    # never join. Once it has ended, torchrun ends them.
    distributed.destroy_process_group()
