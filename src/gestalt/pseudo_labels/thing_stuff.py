"""The thing-stuff split: pseudo-classes that mostly lie inside objects are things."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.data.atomic_files import write_bytes
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.panoptic import Vocabulary
from gestalt.pseudo_labels.fuse import Statistics

# Keeps the ratio of a pseudo-class without pixels at zero; the constant of CUPS.
NO_PIXELS = 1e-6

STATISTICS_FILE = "statistics.json"


@dataclass(frozen=True, eq=False)
class ThingStuffSplit:
    """The split and all that it was decided from.

    Attributes:
        vocabulary: Things and stuff, each in descending order of ratio.
        ratios: (P,) float64, share of pixels inside objects, normalised to sum 1 over pseudo-classes.
        psi: The threshold.
        statistics: The counts of all frames.
    """

    vocabulary: Vocabulary
    ratios: npt.NDArray[np.float64]
    psi: float
    statistics: Statistics

    def save(self, path: Path) -> None:
        """Write ``vocabulary.json``."""
        content = {
            "things": list(self.vocabulary.things),
            "stuff": list(self.vocabulary.stuff),
            "psi": self.psi,
            "ratios": self.ratios.tolist(),
            "statistics": self.statistics.to_json(),
        }
        write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())

    def metrics(self) -> dict[str, Any]:
        """What ``dvc metrics`` shows."""
        things = list(self.vocabulary.things)
        ratios = np.sort(self.ratios)[::-1]
        return {
            "n_frames": self.statistics.n_frames,
            "n_things": len(things),
            "n_stuff": len(self.vocabulary.stuff),
            "instances": int(self.statistics.instances.sum()),
            "instances_of_things_share": float(
                self.statistics.instances[things].sum() / max(self.statistics.instances.sum(), 1)
            ),
            "smallest_thing_ratio": float(ratios[len(things) - 1]),
            "largest_stuff_ratio": float(ratios[len(things)]),
        }


def split_things_from_stuff(statistics: Statistics, psi: float) -> ThingStuffSplit:
    """Decide for each pseudo-class whether it is countable.

    Args:
        statistics: Counts over the whole set of labels.
        psi: Things are the pseudo-classes whose normalised ratio is above.

    Returns:
        Both lists sorted by descending ratio; equal ratios by descending number of pixels, then by id.

    Raises:
        DataError: No pseudo-class passes, or all do: a network cannot be trained on either.

    Source:
        CUPS (Hahn et al., CVPR 2025): r_k = pixels inside objects / pixels, divided by the sum over k,
        compared with psi = 0.08. The released code answers "no things" when all pass and trains on
        nothing when none does; ours stops.
    """
    raw = statistics.pixels_in_instances / (statistics.pixels + NO_PIXELS)
    if raw.sum() == 0:
        raise DataError(
            f"no pseudo-class can be a thing: the labels of {statistics.n_frames} frames hold no instance. "
            "Look at the reasons in reports/metrics/motion-*.json, and at `gestalt show motion`"
        )
    ratios = raw / raw.sum()
    order = np.lexsort((np.arange(len(ratios)), -statistics.pixels, -ratios))
    is_thing = ratios[order] > psi
    if is_thing.all() or not is_thing.any():
        found, bound = ("none", ratios.max()) if not is_thing.any() else ("every one", ratios.min())
        raise DataError(
            f"thing_stuff.psi = {psi} must part the {len(ratios)} pseudo-classes into things and stuff, but "
            f"{found} is a thing; set it {'below' if found == 'none' else 'to at least'} {bound:.4f}"
        )
    vocabulary = Vocabulary(tuple(order[is_thing].tolist()), tuple(order[~is_thing].tolist()))
    return ThingStuffSplit(vocabulary, ratios, psi, statistics)


def sum_statistics(folders: Mapping[str, Path], expected: Mapping[str, Sequence[str]]) -> Statistics:
    """Add up the statistics of all batches, and make sure that none is missing, stale or partial.

    Args:
        folders: Batch name -> shard folder of its pseudo-labels.
        expected: Batch name -> frame ids that its manifest lists as usable.

    Raises:
        DataError: A batch has no statistics, its frames are not those of its manifest, or the counts are of
            another number of frames than the folder holds.
    """
    if not folders:
        raise DataError("`batches` in params.yaml is empty; `gestalt data add` adds one")
    return reduce(add, [_checked(batch, folder, expected[batch]) for batch, folder in folders.items()])


def _checked(batch: str, folder: Path, expected: Sequence[str]) -> Statistics:
    path = folder / STATISTICS_FILE
    if not path.exists():
        raise DataError(f"{path} does not exist; `dvc repro pseudo_labels@{batch}` makes it")
    statistics = Statistics.from_json(json.loads(path.read_text(encoding="utf-8")))
    frames = ShardFolder(folder).frames()
    found = set(frames["frame_id"])
    missing, foreign = sorted(set(expected) - found), sorted(found - set(expected))
    if missing or foreign:
        example = (missing or foreign)[0]
        raise DataError(
            f"{folder}: the labels must be of the {len(expected)} frames of the batch's manifest, but "
            f"{len(missing)} are missing and {len(foreign)} are foreign (such as {example}); "
            f"`dvc repro pseudo_labels@{batch}` makes them again"
        )
    n_labelled = int((frames["status"] != "failed").sum())
    if n_labelled != statistics.n_frames:
        raise DataError(
            f"{path}: counts are of {statistics.n_frames} frames, but the folder holds {n_labelled}; "
            f"`dvc repro pseudo_labels@{batch}` makes both again"
        )
    return statistics
