"""Settings of the section ``runtime``: none of them may change a result, so DVC does not track them."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import setting


@dataclass(frozen=True)
class RuntimeSettings:
    """Where the work runs."""

    device: str = setting("auto (a GPU where there is one), cpu, cuda or cuda:N")
    workers: int = setting("processes of per-shard stages; 0 takes one per core", low=0)
    threads: int = setting("numeric threads of a training process; 0 takes one per core", low=0)
    executor: str = setting("who runs the shards", choices=("local", "dask"))
    shard_size: int = setting("frames in a shard", low=1)
    max_failed_share: float = setting("a stage fails when more of its frames fail", low=0, high=1)
