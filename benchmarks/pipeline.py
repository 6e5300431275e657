"""Seconds, CPU seconds and peak memory of every stage of ``make run``, as one JSON object.

Reads what the stages of the last run wrote to ``reports/status``; with ``--run``, first runs the whole
pipeline in a fresh clone of the last commit, so that nothing comes from a cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MEASURED = ("seconds", "cpu_seconds", "peak_memory_mib")
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="repository (default: this one)")
    parser.add_argument(
        "--run", action="store_true", help="run the pipeline in a fresh temporary clone first"
    )
    arguments = parser.parse_args()
    try:
        measured = run_fresh(arguments.root) if arguments.run else read_status(arguments.root)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        print(f"pipeline: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(measured, indent=2))


def read_status(root: Path) -> dict[str, Any]:
    """What the stages of the last run measured of themselves.

    Args:
        root: Repository.

    Returns:
        ``stages``: by stage instance, the measured numbers; ``total``: sums of the times, largest memory.
        Stages that DVC skipped since keep the numbers of the run that made their outputs.

    Raises:
        FileNotFoundError: No stage was run yet.
    """
    stages = {}
    for path in sorted((root / "reports/status").glob("*.json")):
        status = json.loads(path.read_text(encoding="utf-8"))
        stages[path.stem] = {name: status[name] for name in MEASURED if name in status}
    if not stages:
        raise FileNotFoundError(
            f"{root / 'reports/status'} holds no status file; run the pipeline first: make run"
        )
    numbers = list(stages.values())
    total = {name: round(sum(stage.get(name, 0.0) for stage in numbers), 2) for name in MEASURED[:2]}
    total["peak_memory_mib"] = max(stage.get("peak_memory_mib", 0.0) for stage in numbers)
    return {"stages": stages, "total": total, "cores": len(os.sched_getaffinity(0))}


def run_fresh(root: Path) -> dict[str, Any]:
    """Clone the last commit, run ``dvc repro`` there, and measure the whole from outside as well.

    Args:
        root: Repository.

    Returns:
        As ``read_status``, with ``wall_seconds`` of the whole command, DVC included, and the ``commit``.

    Raises:
        subprocess.CalledProcessError: The clone or the run fails.
    """
    with tempfile.TemporaryDirectory(prefix="gestalt-pipeline-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True, stdout=sys.stderr)
        # The environment is this one; its package must be the clone's, not the working tree's.
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(clone / "src"),
            "OMP_WAIT_POLICY": "PASSIVE",
            "DVC_NO_ANALYTICS": "1",
        }
        started = time.perf_counter()
        subprocess.run(["dvc", "repro"], cwd=clone, env=environment, check=True, stdout=sys.stderr)
        seconds = round(time.perf_counter() - started, 2)
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=clone, check=True, capture_output=True, text=True
        )
        return {**read_status(clone), "wall_seconds": seconds, "commit": commit.stdout.strip()}


if __name__ == "__main__":
    main()
