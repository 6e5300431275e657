"""How long k-means takes and how good it gets: ours, scikit-learn's and faiss's, on the same planted vectors.

Each method runs in a process of its own, so that its peak memory is its own; faiss is left out where it is not
installed. Prints one JSON object. Inertia is measured the same way for all, over all vectors; ``ratio`` is to the
smallest one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# Planted clusters overlap, as those of features do: their centres are about as far apart as the noise is wide.
PLANTED, NOISE, CHUNK = 60, 1.0, 262144
GREEDY_TRIALS = 5
Centres = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """What is clustered, and how.

    Attributes:
        path: NPY file, (n, D) float32 or float16.
        n_clusters: K.
        restarts: Independent starts.
        max_steps: Lloyd steps at most.
        batch: Vectors of a mini-batch.
        threads: Numeric threads.
    """

    path: str
    n_clusters: int
    restarts: int
    max_steps: int
    batch: int
    threads: int


def main() -> None:
    """Measure the methods that were named."""
    parser = argparse.ArgumentParser(prog="benchmarks/kmeans.py", description=__doc__)
    parser.add_argument("--vectors", type=int, default=50_000, help="n (default: %(default)s)")
    parser.add_argument("--dimension", type=int, default=106, help="D (default: %(default)s)")
    parser.add_argument("--clusters", type=int, default=27, help="K (default: %(default)s)")
    parser.add_argument("--restarts", type=int, default=10, help="starts (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="Lloyd steps at most (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16384, help="of mini-batches (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="numeric threads (default: %(default)s)")
    parser.add_argument("--half", action="store_true", help="store vectors in half precision")
    parser.add_argument(
        "--methods", nargs="+", choices=sorted(METHODS), default=["ours", "scikit-learn", "faiss"]
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        write_vectors(
            path, arguments.vectors, arguments.dimension, np.float16 if arguments.half else np.float32
        )
        task = Task(
            str(path),
            arguments.clusters,
            arguments.restarts,
            arguments.steps,
            arguments.batch,
            arguments.threads,
        )
        chosen = [name for name in arguments.methods if "faiss" not in name or find_spec("faiss")]
        results = {name: _in_own_process(name, task) for name in chosen}
    best = min(result["inertia"] for result in results.values())
    for result in results.values():
        result["ratio"] = round(result["inertia"] / best, 5)
    settings = {**asdict(task), "path": None, "n": arguments.vectors, "dimension": arguments.dimension}
    print(json.dumps({"settings": settings, "results": results}, indent=2))


def write_vectors(path: Path, n: int, dimension: int, dtype: type[np.floating[Any]]) -> None:
    """A mixture of Gaussians of uneven shares, in sequences of one kind as cells of images are."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(PLANTED, dimension)).astype(np.float32)
    shares = rng.dirichlet(np.full(PLANTED, 2.0))
    file = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(n, dimension))
    for first in range(0, n, CHUNK):
        count = min(CHUNK, n - first)
        kind = np.repeat(rng.choice(PLANTED, -(-count // 16), p=shares), 16)[:count]
        noise = rng.standard_normal((count, dimension), dtype=np.float32)
        file[first : first + count] = centres[kind] + NOISE * noise
    file.flush()


def _in_own_process(name: str, task: Task) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (name, task))


def _measure(name: str, task: Task) -> dict[str, Any]:
    """Cluster, and say what it took; libraries are loaded before the clock starts."""
    import torch
    from threadpoolctl import threadpool_limits

    from gestalt.features.kmeans import nearest_centre
    from gestalt.runtime import peak_memory_mib

    torch.set_num_threads(task.threads)
    prepare = METHODS[name]
    with threadpool_limits(task.threads):
        cluster = prepare(task)
        before = peak_memory_mib()
        wall, cpu = time.perf_counter(), time.process_time()
        centres, n_steps = cluster()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = peak_memory_mib()
        vectors = np.load(task.path, mmap_mode="r")
        _, distance = nearest_centre(vectors, torch.from_numpy(np.ascontiguousarray(centres)))
    return {
        "seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        "peak_mib": round(peak),
        "peak_mib_before": round(before),
        "n_steps": n_steps,
        "inertia": float(distance.mean(dtype=torch.float64)),
    }


def _ours(
    task: Task, *, in_batches: bool, is_mapped: bool, trials: int = 1
) -> Callable[[], tuple[Centres, int]]:
    import dataclasses

    import torch

    from gestalt.features.kmeans import MINI_BATCH, fit_kmeans
    from gestalt.runtime import torch_generator

    vectors = np.load(task.path, mmap_mode="r") if is_mapped else torch.from_numpy(np.load(task.path))
    settings = dataclasses.replace(MINI_BATCH, above=0, size=task.batch) if in_batches else None

    def cluster() -> tuple[Centres, int]:
        found = fit_kmeans(
            vectors,
            task.n_clusters,
            restarts=task.restarts,
            max_steps=task.max_steps,
            generator=torch_generator(0),
            seed_trials=trials,
            mini_batch=settings,
        )
        return found.centres.numpy(), found.n_steps

    return cluster


def _scikit_learn(task: Task, *, algorithm: str) -> Callable[[], tuple[Centres, int]]:
    from sklearn.cluster import KMeans, MiniBatchKMeans

    vectors = np.load(task.path).astype(np.float32, copy=False)

    def cluster() -> tuple[Centres, int]:
        if algorithm == "mini-batch":
            found = MiniBatchKMeans(
                task.n_clusters, batch_size=task.batch, n_init=task.restarts, random_state=0
            ).fit(vectors)
        else:
            found = KMeans(
                task.n_clusters,
                n_init=task.restarts,
                max_iter=task.max_steps,
                algorithm=algorithm,
                random_state=0,
            ).fit(vectors)
        return found.cluster_centers_.astype(np.float32), int(getattr(found, "n_steps_", found.n_iter_))

    return cluster


def _faiss(task: Task, *, is_sampled: bool) -> Callable[[], tuple[Centres, int]]:
    import faiss

    vectors = np.load(task.path).astype(np.float32, copy=False)
    faiss.omp_set_num_threads(task.threads)
    # It has no rule to stop; by default it clusters 256 vectors per centre only.
    limit = {} if is_sampled else {"max_points_per_centroid": len(vectors)}

    def cluster() -> tuple[Centres, int]:
        found = faiss.Kmeans(
            vectors.shape[1], task.n_clusters, niter=min(25, task.max_steps), nredo=task.restarts, **limit
        )
        found.train(vectors)
        return found.centroids, min(25, task.max_steps)

    return cluster


METHODS: dict[str, Callable[[Task], Callable[[], tuple[Centres, int]]]] = {
    "ours": lambda task: _ours(task, in_batches=False, is_mapped=False),
    "ours greedy": lambda task: _ours(task, in_batches=False, is_mapped=False, trials=GREEDY_TRIALS),
    "ours mapped": lambda task: _ours(task, in_batches=False, is_mapped=True),
    "ours mini-batch": lambda task: _ours(task, in_batches=True, is_mapped=False),
    "ours mini-batch mapped": lambda task: _ours(task, in_batches=True, is_mapped=True),
    "ours mini-batch greedy": lambda task: _ours(task, in_batches=True, is_mapped=True, trials=GREEDY_TRIALS),
    "scikit-learn": lambda task: _scikit_learn(task, algorithm="lloyd"),
    "scikit-learn elkan": lambda task: _scikit_learn(task, algorithm="elkan"),
    "scikit-learn mini-batch": lambda task: _scikit_learn(task, algorithm="mini-batch"),
    "faiss": lambda task: _faiss(task, is_sampled=False),
    "faiss sampled": lambda task: _faiss(task, is_sampled=True),
}


if __name__ == "__main__":
    main()
