"""DVC stage ``manifest``: a batch of stereo video -> the table of its checked pairs."""

from __future__ import annotations

from pathlib import Path

from gestalt.data.manifest import build_manifest, check_share, count_faults, write_manifest
from stages.entry import Outcome, Stage, run_stage


def manifest(stage: Stage) -> Outcome:
    """Find and check the stereo pairs of a batch."""
    table = build_manifest(Path("data/raw") / stage.item, stage.item, stage.params.manifest)
    write_manifest(table, Path("data/manifests") / f"{stage.item}.parquet")
    # Written first: the table says which pairs are broken and why.
    check_share(table, stage.params.manifest.max_broken_share)
    broken = table[table["status"] != "ok"]
    metrics = {
        "n_pairs": len(table),
        "n_ok": len(table) - len(broken),
        "n_broken": len(broken),
        "n_sequences": table["sequence"].nunique(),
        "faults": count_faults(broken["reason"].tolist()),
    }
    return Outcome(metrics=metrics, status=metrics)


def main() -> None:
    """Run the stage."""
    run_stage(manifest, name="manifest", item="batch")


if __name__ == "__main__":
    main()
