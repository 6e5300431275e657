"""Throughput of the stage ``motion``: workers, executors, and cost and memory against the number of frames.

Renders a small batch in a temporary folder with the stages ``scenes`` and ``manifest`` (or takes the batch of
``--workspace``) and does the stage's work on it with one worker, with two, and on Dask. Then it gives the same
image files many frame ids and counts what a frame costs and how much memory the processes need as frames become
many; small images and few hypotheses keep that short. Prints one JSON object; ends with 1 where two executors wrote
different bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from gestalt.config import Params, load_params
from gestalt.config.writing import configure
from gestalt.data.manifest import read_manifest
from gestalt.data.records import StereoFrame
from gestalt.data.sharded_run import FrameResult, run_sharded
from gestalt.errors import GestaltError
from gestalt.motion.proposals import FrameProposer
from gestalt.runtime import available_cores, open_executor, start

ROOT = Path(__file__).resolve().parents[1]
BATCH = "day"
# Consecutive pairs of a rendered snippet; consecutive pairs share images, as video does.
PAIRS_PER_SNIPPET = 4
LOCAL, DASK = "local", "dask"
# What a frame costs is not the point of the sweep, only whether it stays the same.
FEW_HYPOTHESES = (
    "motion.runs=1",
    "motion.clustering.grid_rows=24",
    "motion.clustering.outer_iterations=1",
    "motion.clustering.proposals=8",
    "motion.clustering.selections=1",
)


@dataclass(frozen=True)
class Job:
    """One run of the stage's work.

    Attributes:
        workspace: Folder with ``params.yaml`` and the batch.
        batch: The batch.
        executor: ``local`` or ``dask``.
        workers: Processes.
        n_frames: Frame ids; the pairs of the batch are repeated until there are so many.
        overrides: ``section.key=value`` on top of the workspace's parameters.
    """

    workspace: str
    batch: str
    executor: str
    workers: int
    n_frames: int
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timed:
    """A frame's work that notes when it was done and what it cost, in a file per process.

    Attributes:
        process: The work.
        folder: Of the notes, which are no part of the result: equal results stay equal bytes.
    """

    process: Callable[[StereoFrame], FrameResult]
    folder: Path

    def __call__(self, frame: StereoFrame) -> FrameResult:
        """The result of the frame."""
        began, cpu = time.time(), time.process_time()
        result = self.process(frame)
        note = {"began": began, "ended": time.time(), "cpu": time.process_time() - cpu}
        with (self.folder / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as notes:
            notes.write(json.dumps(note) + "\n")
        return result


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/motion_stage.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workspace", type=Path, help="folder with params.yaml and data/manifests (default: makes one)"
    )
    parser.add_argument("--batch", default=BATCH, help="batch of the workspace (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=24, help="frames per executor (default: %(default)s)")
    parser.add_argument("--height", type=int, default=192, help="rows of rendered images")
    parser.add_argument("--width", type=int, default=384, help="columns of rendered images")
    parser.add_argument("--workers", type=int, default=2, help="processes of the parallel runs")
    parser.add_argument(
        "--executors",
        nargs="+",
        default=[LOCAL, DASK],
        choices=(LOCAL, DASK),
        help="local runs with one worker, too",
    )
    parser.add_argument(
        "--sweep", type=int, nargs="*", default=[50, 500, 5000], help="numbers of frames; none leaves it out"
    )
    parser.add_argument("--sweep-height", type=int, default=64, help="rows of the images of the sweep")
    parser.add_argument("--sweep-width", type=int, default=128, help="columns of the images of the sweep")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.job:
            values = json.loads(given.job)
            start()
            report = run_job(Job(**{**values, "overrides": tuple(values["overrides"])}))
        else:
            report = measure(given)
    except (GestaltError, subprocess.CalledProcessError) as error:
        print(f"benchmarks/motion_stage.py: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(report, indent=None if given.job else 2))
    sys.exit(0 if report.get("identical", True) else 1)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that the command line asks for.

    Returns:
        ``executors``: a row per executor, see ``run_job``, or why it was skipped; ``identical``: whether all
        wrote the same bytes; ``sweep``: a row per number of frames; ``cores``, and ``load`` before and after:
        processes that wanted a core in the last minute.
    """
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(prefix="gestalt-motion-stage-") as folder:
        size = (given.height, given.width)
        workspace = given.workspace or make_workspace(Path(folder) / "video", *size, n_pairs=given.frames)
        rows: list[dict[str, Any]] = []
        runs = [(LOCAL, 1)] * (LOCAL in given.executors) + [(name, given.workers) for name in given.executors]
        for executor, workers in runs:
            if executor == DASK and find_spec("distributed") is None:
                rows.append({"executor": DASK, "skipped": "dask.distributed is not installed"})
                continue
            job = Job(str(workspace.resolve()), given.batch, executor, workers, given.frames)
            rows.append(in_fresh_process(job))
        sweep = []
        if given.sweep:
            size = (given.sweep_height, given.sweep_width)
            small = make_workspace(Path(folder) / "small", *size, n_pairs=2 * PAIRS_PER_SNIPPET)
            for n_frames in given.sweep:
                job = Job(str(small), BATCH, LOCAL, given.workers, n_frames, FEW_HYPOTHESES)
                sweep.append(in_fresh_process(job))
    digests = {row["digest"] for row in rows if "digest" in row}
    return {
        "executors": rows,
        "identical": len(digests) == 1,
        "sweep": sweep,
        "cores": available_cores(),
        "load": [round(value, 2) for value in (*load, os.getloadavg()[0])],
    }


def make_workspace(folder: Path, height: int, width: int, *, n_pairs: int) -> Path:
    """Render a batch called ``day`` and list its pairs, with the stages that do so.

    Args:
        folder: Made here.
        height: Rows of the images.
        width: Columns of the images.
        n_pairs: At least so many stereo pairs with a successor.

    Returns:
        The folder.

    Raises:
        subprocess.CalledProcessError: A stage fails.
    """
    folder.mkdir(parents=True)
    batches = [f"{key}=[{BATCH}]" for key in ("batches", "fit_batches", "rendered_batches", "truth_batches")]
    values = {
        "scenes.n_snippets": -(-n_pairs // PAIRS_PER_SNIPPET),
        "scenes.frames_per_snippet": PAIRS_PER_SNIPPET + 1,
        "scenes.height": height,
        "scenes.width": width,
        "scenes.exact_frames": 0,
        "frames.height": height,
        "frames.width": width,
        # Images this small show too little for the checks that look at their content.
        "manifest.content_checks_per_sequence": 0,
    }
    configure([*batches, *(f"{key}={value}" for key, value in values.items())], folder / "params.yaml")
    for stage in ("scenes", "manifest"):
        run_stage(stage, folder)
    return folder


def run_stage(stage: str, folder: Path) -> None:
    """Run a stage on the batch of a workspace.

    Raises:
        subprocess.CalledProcessError: It fails; it has said why.
    """
    command = [sys.executable, "-m", f"stages.{stage}", "--batch", BATCH]
    subprocess.run(command, cwd=folder, env=_environment(), check=True, stdout=sys.stderr)


def in_fresh_process(job: Job) -> dict[str, Any]:
    """``run_job`` in a process of its own: memory and CPU time are counted per process.

    Raises:
        subprocess.CalledProcessError: The job fails; it has said why.
    """
    command = [sys.executable, "-m", "benchmarks.motion_stage", "--job", json.dumps(dataclasses.asdict(job))]
    done = subprocess.run(
        command, cwd=job.workspace, env=_environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def run_job(job: Job) -> dict[str, Any]:
    """Do the stage's work on a batch in the working directory, and measure it.

    Returns:
        ``seconds`` of the whole run and ``start_seconds`` until the first frame began. Without the first frame
        of every process, which warms it up: ``frames_per_second`` from when all processes were warm,
        ``cpu_seconds_per_frame`` and ``seconds_per_frame`` in a worker. ``cpu_seconds`` of all processes, their
        starts included. ``peak_rss_mib`` of the process that hands out the work and of the largest worker.
        ``digest`` of every byte that was written.
    """
    params = load_params(overrides=job.overrides)
    pairs = read_manifest(Path("data/manifests") / f"{job.batch}.parquet")
    frames = repeat(pairs, job.n_frames)
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        notes = folder / "notes"
        notes.mkdir()
        began = time.time()
        run_sharded(
            frames,
            Timed(FrameProposer(params.motion, params.frames, params.seed), notes),
            out_dir=folder / "out",
            cache_dir=folder / "cache",
            key={},
            shard_size=_shard_size(params, job),
            open_executor=lambda: open_executor(job.executor, job.workers),
            max_failed_share=0.0,
            label=f"{job.executor}, {job.workers} workers",
        )
        seconds = time.time() - began
        if job.executor == DASK:
            _close_dask()
        return {
            "executor": job.executor,
            "workers": job.workers,
            "frames": len(frames),
            "seconds": round(seconds, 2),
            **summarise(_read_notes(notes), began),
            "cpu_seconds": round(sum(os.times()[:4]), 2),
            "peak_rss_mib": {
                "parent": _peak_mib(resource.RUSAGE_SELF),
                "worker": _peak_mib(resource.RUSAGE_CHILDREN),
            },
            "digest": digest(folder / "out"),
        }


def repeat(pairs: list[StereoFrame], count: int) -> list[StereoFrame]:
    """``count`` frames with the files of ``pairs``, again and again in order, each with an id of its own."""
    return [
        dataclasses.replace(pair, frame_id=f"{number:06d}")
        for number, pair in enumerate(islice(cycle(pairs), count))
    ]


def summarise(notes: list[list[dict[str, float]]], began: float) -> dict[str, float]:
    """What the notes of the workers say; see ``run_job``.

    Args:
        notes: Of every process, one note per frame in order: ``began``, ``ended`` (seconds since the epoch),
            ``cpu`` (seconds).
        began: When the run began.
    """
    warm_from = max(process[0]["ended"] for process in notes)
    warm = [note for process in notes for note in process[1:]]
    in_warm_time = [note for note in warm if note["ended"] > warm_from]
    last = max(note["ended"] for process in notes for note in process)
    summary = {"start_seconds": round(min(process[0]["began"] for process in notes) - began, 2)}
    if in_warm_time:
        summary["frames_per_second"] = round(len(in_warm_time) / (last - warm_from), 3)
    if warm:
        spent = sum(note["ended"] - note["began"] for note in warm)
        summary["seconds_per_frame"] = round(spent / len(warm), 4)
        summary["cpu_seconds_per_frame"] = round(sum(note["cpu"] for note in warm) / len(warm), 4)
    return summary


def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files of a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(path.read_bytes())
    return total.hexdigest()


def _shard_size(params: Params, job: Job) -> int:
    """Frames of a shard: the stage's, or fewer where so small a run would leave workers without a shard.

    Nothing here depends on the number of workers of one run: equal shards are what makes bytes comparable.
    """
    return min(params.runtime.shard_size, max(1, job.n_frames // 6))


def _read_notes(folder: Path) -> list[list[dict[str, float]]]:
    files = sorted(folder.glob("*.jsonl"))
    return [[json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in files]


def _close_dask() -> None:
    """End the local cluster: memory and CPU time of processes count when they have ended."""
    from distributed import default_client

    client = default_client()
    cluster: Any = client.cluster
    client.close()
    if cluster is not None:
        cluster.close()


def _peak_mib(who: int) -> float:
    return round(resource.getrusage(who).ru_maxrss / 1024, 1)


def _environment() -> dict[str, str]:
    """This process's, with this repository importable from any folder."""
    paths = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


if __name__ == "__main__":
    main()
