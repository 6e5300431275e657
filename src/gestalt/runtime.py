"""Where and how code runs: device, threads, seeds, executor, progress, environment fingerprint.

Nothing here may change a result, except ``derive_seed``, which makes results depend on nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import platform
import re
import sys
from collections.abc import Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from importlib import metadata
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from gestalt.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# Seeds of NumPy and torch generators; 63 bits fit both.
DEVICE_NAME = re.compile(r"auto|cpu|cuda(?::(?P<number>\d+))?")
SEED_BITS = 63

# Spin-waiting OpenMP threads cost several times the work itself when cores are shared.
QUIET_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    # Planes of an image come and go; giving each back to the system costs a quarter of a frame's time. Processes
    # that this one starts read these two.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
}


def start(*, threads: int = 1) -> None:
    """Set up a process that is about to do work: logging, quiet libraries, numeric threads.

    Called once by every ``main()``; modules never do this on import.
    """
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    limit_threads(threads)


def limit_threads(threads: int) -> None:
    """Let numeric libraries of this process use ``threads`` threads; sums may differ in their last bits."""
    import cv2

    cv2.setNumThreads(threads)
    # Importing torch takes seconds and many stages never do; one that does later reads the variable.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def available_cores() -> int:
    """Number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(name: str = "auto", *, key: str = "runtime.device") -> torch.device:
    """The device called ``name``: ``auto`` takes a GPU where there is one.

    Args:
        name: auto, cpu, cuda or cuda:N.
        key: What the name was given as, for the message.

    Raises:
        ConfigError: The name is none of these, or that GPU is not there.
    """
    import torch

    wanted = DEVICE_NAME.fullmatch(name)
    if wanted is None:
        raise ConfigError(f"{key} must be auto, cpu, cuda or cuda:N. Got: {name!r}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    n_devices = torch.cuda.device_count()
    if name != "cpu" and int(wanted["number"] or 0) >= n_devices:
        raise ConfigError(
            f"{key} is {name!r}, but the number of CUDA devices here is {n_devices}; use auto or cpu"
        )
    return torch.device(name)


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether networks run in bfloat16.

    Args:
        precision: bf16, fp32, or auto: where the device computes bf16 itself. CPUs and older GPUs are slower with
            it than without.
        device: Where they run.
    """
    import torch

    is_quick = device.type != "cpu" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16" or (precision == "auto" and is_quick)


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2**63) that depends on ``seed`` and the words of ``purpose`` and on nothing else.

    Frame ids and purposes are hashed, so order, shards and workers cannot change a result.
    """
    text = "/".join(str(word) for word in (seed, *purpose))
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator seeded by ``derive_seed``."""
    return np.random.default_rng(derive_seed(seed, *purpose))


def torch_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU torch generator seeded by ``derive_seed``."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


def open_executor(kind: str = "local", workers: int = 0) -> Executor:
    """The one executor of all per-shard work.

    Args:
        kind: ``local`` (a pool of fresh processes) or ``dask`` (the cluster that Dask's configuration,
            or ``DASK_SCHEDULER_ADDRESS``, names; a local one otherwise).
        workers: Number of processes; 0 takes one per core.

    Raises:
        ConfigError: ``kind`` is unknown.
        MissingDependencyError: Dask is not installed.
    """
    workers = workers or available_cores()
    if kind == "local":
        # Fresh processes: forking a process whose numeric libraries already run threads can deadlock.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, mp_context=context, initializer=start)
    if kind == "dask":
        try:
            from dask.distributed import Client
        except ImportError as error:
            raise MissingDependencyError(
                "runtime.executor is 'dask', but dask.distributed is missing: pip install -e '.[dask]'"
            ) from error
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        client = Client(address) if address else Client(n_workers=workers, threads_per_worker=1)
        executor: Executor = client.get_executor()
        return executor
    raise ConfigError(f"runtime.executor is {kind!r}; known executors: dask, local")


def progress(
    items: Iterable[T], *, label: str, total: int | None = None, unit: str = "frame", done: int = 0
) -> Iterable[T]:
    """``items`` with a bar on standard error that shows the time left; seldom drawn where no person looks.

    What an earlier run has ``done`` of the ``total`` is drawn and does not count for the time left.

    A machine that only trains may lack the library of the bar: no bar then, and nothing else changes.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    interval = 0.5 if sys.stderr.isatty() else 20.0
    bar: Iterable[T] = tqdm(
        items,
        desc=label,
        total=total,
        initial=done,
        unit=unit,
        mininterval=interval,
        file=sys.stderr,
        dynamic_ncols=True,
    )
    return bar


def peak_memory_mib() -> float:
    """Largest resident memory of this process and of its finished children so far, MiB."""
    import resource

    usage = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return usage / 1024


def fingerprint() -> dict[str, str]:
    """Versions and machine that results may depend on in the last bit, for the tracking record."""
    packages = ("torch", "torchvision", "numpy", "scipy", "opencv-python-headless", "scikit-learn")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "missing"
    return {"python": platform.python_version(), "machine": platform.machine(), **versions}
