"""``make results``: ablations over several seeds, each in its own worktree, into one page.

All worktrees share DVC's cache, so a stage that two variants have in common runs once. Two variants run
side by side with one numeric thread each, which uses two cores better than one variant with two threads.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from flows.results_page import CHART, FULL, PAGE, Job, draw, render

LOG = logging.getLogger(__name__)
# Sections of the page that another command writes begin so.
SEMANTICS_HEADING = "## Pseudo-classes from "
LABEL_TARGETS, TARGETS = ("label_quality",), ("label_quality", "evaluate")

VARIANTS: dict[str, tuple[str, ...]] = {
    FULL: (),
    "without_motion": ("ablation=without_motion",),
    "normalized_cut": ("ablation=normalized_cut",),
    "without_depth": ("ablation=without_depth",),
    "without_crf": ("ablation=without_crf",),
    "kmeans": ("ablation=kmeans",),
    "stego": ("ablation=stego",),
    "without_copy_paste": ("ablation=without_copy_paste",),
    "without_drop_loss": ("ablation=without_drop_loss",),
}


@dataclass(frozen=True)
class Work:
    """What every job does: with which preset, up to which stages, with which commit's code."""

    preset: str
    targets: tuple[str, ...]
    commit: str


def commit_of(name: str) -> str:
    """The full hash behind a name, so that commits made meanwhile change nothing."""
    found = subprocess.run(["git", "rev-parse", name], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(prog="python -m flows.results", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="variants side by side")
    parser.add_argument("--preset", default="embedded")
    parser.add_argument(
        "--labels-only", action="store_true", help="stop at the pseudo-labels: minutes, not hours"
    )
    parser.add_argument(
        "--commit", default="HEAD", help="the code to run; one for all, whatever is committed meanwhile"
    )
    parser.add_argument("--page-only", action="store_true", help="write the page from the runs that are done")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    jobs = [Job(variant, seed) for variant in arguments.variants for seed in arguments.seeds]
    failed: list[Job] = []
    if not arguments.page_only:
        targets = LABEL_TARGETS if arguments.labels_only else TARGETS
        failed = run_all(jobs, Work(arguments.preset, targets, commit_of(arguments.commit)), arguments.jobs)
    draw(jobs, CHART)
    PAGE.write_text(render(jobs, arguments.preset) + kept_sections(PAGE), encoding="utf-8")
    LOG.info("wrote %s", PAGE)
    if failed:
        sys.exit(f"{len(failed)} of {len(jobs)} runs failed; their rows lack a seed, the logs say why")


def kept_sections(page: Path) -> str:
    """What `benchmarks/semantics.py` wrote into the page: everything from its first section on."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    _, found, rest = text.partition(SEMANTICS_HEADING)
    return f"\n{found}{rest}" if found else ""


def run_all(jobs: Sequence[Job], work: Work, side_by_side: int) -> list[Job]:
    """Run jobs, ``side_by_side`` at a time; a failed one is reported and leaves the others alone.

    The full method of a seed goes first: the others find its scenes, motion and features in the cache.

    Returns:
        The jobs that failed.
    """
    ordered = sorted(jobs, key=lambda job: (job.variant != FULL, job.seed))
    running: dict[Job, Future[str]] = {}

    def run_in_turn(job: Job) -> str:
        # Submitted earlier, so this cannot wait for a job that waits for a free place.
        if job.variant != FULL and (full := running.get(Job(FULL, job.seed))) is not None:
            wait([full])
        return run_job(job, work)

    with ThreadPoolExecutor(side_by_side) as pool:
        for job in ordered:
            running[job] = pool.submit(run_in_turn, job)
        for job, done in running.items():
            LOG.info("%s seed %d: %s", job.variant, job.seed, done.result() or "done")
    return [job for job, done in running.items() if done.result()]


def run_job(job: Job, work: Work) -> str:
    """Reproduce one variant in its worktree.

    Returns:
        An empty string, or the last line of the failed command.
    """
    if job.folder.exists():
        # A run of before may have been of other code; what DVC finds unchanged is not run again.
        run(["git", "checkout", "--force", "--detach", work.commit], job.folder)
    else:
        run(["git", "worktree", "add", "--force", "--detach", str(job.folder), work.commit], Path.cwd())
        cache = Path(".dvc/cache").resolve()
        local = job.folder / ".dvc" / "config.local"
        local.write_text(f"[cache]\n    dir = {cache}\n[core]\n    autostage = false\n", encoding="utf-8")
    values = [f"preset={work.preset}", *VARIANTS[job.variant], f"seed={job.seed}"]
    values += ["runtime.threads=1", "runtime.workers=1"]
    log = job.folder / "results.log"
    for command in (
        [sys.executable, "-m", "gestalt.cli", "configure", *values],
        [sys.executable, "-m", "dvc", "repro", *work.targets],
    ):
        try:
            run(command, job.folder, log)
        except subprocess.CalledProcessError:
            tail = log.read_text(encoding="utf-8").splitlines()
            return f"failed, see {log}: {tail[-1] if tail else 'no output'}"
    return ""


def run(command: Sequence[str], folder: Path, log: Path | None = None) -> None:
    """Run a command in a folder with that folder's sources.

    Raises:
        CalledProcessError: It failed.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str((folder / "src").resolve()),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    if log is None:
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        return
    with log.open("a", encoding="utf-8") as stream:
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=stream, stderr=stream)


if __name__ == "__main__":
    main()
