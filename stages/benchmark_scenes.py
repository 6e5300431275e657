"""DVC stage ``benchmark_scenes``: a seed -> a rendered evaluation set in its benchmark's own layout."""

from __future__ import annotations

from pathlib import Path

from gestalt.scenes.benchmark_formats import render_benchmark
from stages.entry import Outcome, Stage, run_stage


def benchmark_scenes(stage: Stage) -> Outcome:
    """Render an evaluation set."""
    counts = render_benchmark(
        stage.params.seed,
        stage.item,
        stage.params.benchmark_scenes,
        folder=Path("data/benchmarks") / stage.item,
        work_dir=stage.cache,
        open_executor=stage.open_executor,
    )
    return Outcome(metrics=counts, status=counts)


def main() -> None:
    """Run the stage."""
    run_stage(benchmark_scenes, name="benchmark_scenes", item="benchmark")


if __name__ == "__main__":
    main()
