"""Settings of the section ``runtime``: where the work runs, so DVC does not track them.

None may change a result, but for the last bits of a trained network: another number of threads or another
device adds in another order.
"""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import setting


@dataclass(frozen=True)
class RuntimeSettings:
    """Where the work runs."""

    device: str = setting("auto (a GPU where there is one), cpu, cuda or cuda:N")
    workers: int = setting("processes of per-shard stages; 0 takes one per core", low=0)
    threads: int = setting(
        "numeric threads of a training process; 0 takes one per core. Equal bytes need equal threads", low=0
    )
    executor: str = setting("who runs the shards", choices=("local", "dask"))
    shard_size: int = setting("frames in a shard", low=1)
    max_failed_share: float = setting("a stage fails when more of its frames fail", low=0, high=1)
