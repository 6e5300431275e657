"""DVC stage ``scenes``: a seed -> rendered stereo video of a batch, and its truth in a folder apart."""

from __future__ import annotations

from pathlib import Path

from gestalt.scenes.write import render_batch
from stages.entry import Outcome, Stage, run_stage


def scenes(stage: Stage) -> Outcome:
    """Render the stereo video of a batch."""
    counts = render_batch(
        stage.params.seed,
        stage.item,
        stage.params.scenes,
        video_dir=Path("data/raw") / stage.item,
        truth_dir=Path("data/truth") / stage.item,
        work_dir=stage.cache,
        open_executor=stage.open_executor,
    )
    return Outcome(metrics=counts, status=counts)


def main() -> None:
    """Run the stage."""
    run_stage(scenes, name="scenes", item="batch")


if __name__ == "__main__":
    main()
