"""Seeds depend on purpose alone; unknown devices and executors are explained."""

import numpy as np
import pytest
import torch

from gestalt.errors import ConfigError
from gestalt.runtime import (
    choose_device,
    derive_seed,
    fingerprint,
    numpy_generator,
    open_executor,
    peak_memory_mib,
    progress,
    torch_generator,
)


def test_seed_is_the_same_for_the_same_purpose_and_differs_otherwise() -> None:
    assert derive_seed(1, "frame", 2) == derive_seed(1, "frame", 2)
    assert len({derive_seed(1, "a"), derive_seed(1, "b"), derive_seed(2, "a"), derive_seed(1, "a", 0)}) == 4


def test_seed_fits_numpy_and_torch() -> None:
    for k in range(64):
        assert 0 <= derive_seed(k, "x") < 2**63


def test_generators_repeat() -> None:
    assert numpy_generator(0, "a").random() == numpy_generator(0, "a").random()
    first, second = (torch.rand(3, generator=torch_generator(0, "a")) for _ in range(2))
    assert torch.equal(first, second)


def test_auto_device_exists() -> None:
    assert choose_device("auto").type in {"cpu", "cuda"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_gpu_is_explained() -> None:
    with pytest.raises(ConfigError, match="use auto or cpu"):
        choose_device("cuda:0")


def test_an_unknown_device_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"--device must be auto, cpu, cuda or cuda:N. Got: 'banana'"):
        choose_device("banana", key="--device")


def test_unknown_executor_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="dask, local"):
        open_executor("slurm")


def test_progress_passes_items_through() -> None:
    assert list(progress(range(3), label="counting")) == [0, 1, 2]


def test_fingerprint_names_versions_and_memory_is_positive() -> None:
    assert fingerprint()["numpy"] == np.__version__
    assert peak_memory_mib() > 10
