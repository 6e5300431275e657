"""The benchmark of k-means compares like with like."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.kmeans import METHODS, Task, write_vectors
from gestalt.features.kmeans import nearest_centre

LIBRARY_FREE = [name for name in METHODS if "faiss" not in name]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    path = tmp_path_factory.mktemp("planted") / "vectors.npy"
    write_vectors(path, 3000, 5, np.float16)
    return Task(str(path), n_clusters=6, restarts=2, max_steps=40, batch=512, threads=1)


def test_vectors_are_the_same_each_time_and_come_in_runs_of_a_kind(task: Task, tmp_path: Path) -> None:
    write_vectors(tmp_path / "again.npy", 3000, 5, np.float16)
    assert Path(task.path).read_bytes() == (tmp_path / "again.npy").read_bytes()
    vectors = np.load(task.path).astype(np.float64)
    neighbours = np.linalg.norm(vectors[0::16] - vectors[1::16], axis=1).mean()
    strangers = np.linalg.norm(vectors[0:-16:16] - vectors[16::16], axis=1).mean()
    assert neighbours < 0.85 * strangers


@pytest.mark.parametrize("name", LIBRARY_FREE)
def test_every_method_comes_close_to_the_best(task: Task, name: str) -> None:
    vectors = np.load(task.path)
    inertia = []
    for method in (name, "scikit-learn"):
        centres, n_steps = METHODS[method](task)()
        assert centres.shape == (6, 5)
        assert n_steps > 0
        inertia.append(float(nearest_centre(vectors, torch.from_numpy(centres))[1].mean()))
    assert inertia[0] < 1.1 * inertia[1]
