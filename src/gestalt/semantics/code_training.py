"""The training of codes: correspondence distillation of frozen features into few dimensions, without labels."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gestalt.config.codes import CodeSettings
from gestalt.data.curve import RunningMeans
from gestalt.data.training_state import load_state, save_state, state_folder
from gestalt.errors import ConfigError, DataError
from gestalt.runtime import derive_seed, progress, torch_generator
from gestalt.semantics.code_crops import CodeImage
from gestalt.semantics.code_head import CodeHead, clustering_loss, draw_kept
from gestalt.semantics.code_objective import (
    KINDS,
    Batch,
    CodeObjective,
    Judgement,
    count_correlations,
    measured_shifts,
)
from gestalt.semantics.code_selection import (
    adjusted_rand_index,
    choose_prototypes,
    held_out_images,
    label_twice,
    mutual_information,
    split_crops,
)
from gestalt.semantics.correspondence import draw_derangements
from gestalt.semantics.feature_store import Backbone, FeatureStore, forget_store, open_store
from gestalt.semantics.neighbours import NeighbourIndex, find_neighbours

NAME = "codes"
FEATURE_FOLDER = "features"
DIGITS = 6
COLUMNS = ("step", "total", *KINDS, "depth", "clusters")
# Batches that shifts are measured on before training, and that held-out losses are means of.
SHIFT_BATCHES, HELD_OUT_BATCHES = 8, 4

# A row of the curve: every column by its name; depth is 0 where it has no weight.
CurveRow = dict[str, float]
Log = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, eq=False)
class TrainedCodes:
    """What a training leaves.

    Attributes:
        head: In evaluation mode, on the device of the training, of the selected step.
        prototypes: (K, dimension) float, of unit length, in order of the mean row of what they label.
        curve: A row per ``log_every`` steps.
        record: Selected step, criteria and histograms of all compared steps, shifts, where prototypes come
            from, sizes: plain JSON values.
        folder: Cache of the resumable state; ``forget_codes`` deletes it.
        is_finished: False where time ran out; the same call goes on from the state.
    """

    head: CodeHead
    prototypes: Tensor
    curve: list[CurveRow]
    record: dict[str, Any]
    folder: Path
    is_finished: bool


@dataclass(frozen=True, eq=False)
class Draw:
    """What a step learns from, on the CPU.

    Attributes:
        features: (2B, D, h, w) float16, anchors and neighbours.
        nearness: (2B, h, w) float32.
        focal: (2B,) float32.
        centres: (2B, 2) float32.
        derangements: (n, B) int64.
        kept: (2, 2B, D) float32, channel dropout.
        generator: For the positions.
    """

    features: Tensor
    nearness: Tensor
    focal: Tensor
    centres: Tensor
    derangements: Tensor
    kept: Tensor
    generator: torch.Generator


class CodeTraining:
    """A training of one head on one store of features.

    Args:
        store: Features of all crops.
        settings: Section ``codes``.
        n_pseudo_classes: K, the number of prototypes.
        seed: The experiment's.
        device: Where to train.
        folder: Of the resumable state.
        log: Takes step and losses.
        max_seconds: Stop after this time with the state saved; 0 never stops.
    """

    def __init__(
        self,
        store: FeatureStore,
        settings: CodeSettings,
        *,
        n_pseudo_classes: int,
        seed: int,
        device: torch.device,
        folder: Path,
        log: Log | None = None,
        max_seconds: float = 0.0,
    ) -> None:
        self._store, self._settings, self._seed, self._device = store, settings, seed, device
        self._n_prototypes, self._folder, self._log = n_pseudo_classes, folder, log
        self._deadline = time.monotonic() + max_seconds if max_seconds else float("inf")
        self._split = split_crops(store)
        if not len(self._split.training):
            raise DataError("codes need at least two images: one of them is held out for the selection")
        self._training_neighbours, self._held_out_neighbours = self._find_neighbours()
        # The same start on every device, whatever ran before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, NAME, "initial"))
            self._head = CodeHead(store.dimension, settings.dimension).to(device)
            start = torch.randn(n_pseudo_classes, settings.dimension)
        self._prototypes = start.to(device).requires_grad_()
        self._optimiser = torch.optim.Adam(
            [
                {"params": list(self._head.parameters()), "lr": settings.learning_rate},
                {"params": [self._prototypes], "lr": settings.prototype_learning_rate},
            ]
        )
        self._step = 0
        self._curve: list[CurveRow] = []
        self._checks: list[dict[str, Any]] = []
        self._best: dict[str, Any] | None = None
        self._objective = CodeObjective(settings, store.n_geometry, self._choose_shifts())

    def run(self) -> TrainedCodes:
        """Train, going on from a saved state.

        Raises:
            DataError: A loss is not finite, or the state is damaged.
            ConfigError: The device has not enough memory.
        """
        self._restore()
        is_finished = self._train()
        if self._best is None:
            # Time ran out before the first comparison.
            self._compare()
        assert self._best is not None
        head = copy.deepcopy(self._head).eval()
        head.load_state_dict(self._best["head"])
        prototypes, refit = choose_prototypes(
            head,
            self._best["prototypes"].to(self._device),
            self._store,
            self._split.training,
            self._settings.refit_vectors,
            self._settings.refit_restarts,
            torch_generator(self._seed, NAME, "prototypes"),
        )
        record = {
            "selected_step": self._best["step"],
            "criterion": self._settings.selection.criterion,
            "checks": self._checks,
            "shifts": dict(
                zip(KINDS, (round(shift, DIGITS) for shift in self._objective.shifts), strict=True)
            ),
            "prototypes": refit,
            "n_training_crops": len(self._split.training),
            "n_held_out_crops": len(self._split.held_out),
            "n_steps": self._step,
            "dimension": self._settings.dimension,
            "inputs": self._store.dimension,
            "n_geometry": self._store.n_geometry,
        }
        return TrainedCodes(head, prototypes, self._curve, record, self._folder, is_finished)

    def draw(self, step: int) -> Draw:
        """What a step learns from; seed and step alone decide."""
        generator = torch_generator(self._seed, NAME, "step", step)
        order = torch.randperm(len(self._split.training), generator=generator)
        rows = order[: self._settings.batch_size]
        return self._read(self._split.training[rows], rows, self._training_neighbours, generator)

    def _read(self, anchors: Tensor, rows: Tensor, index: NeighbourIndex, generator: torch.Generator) -> Draw:
        """Crops with a neighbour each; ``rows`` are their places in the index, whose entries are training crops."""
        settings, store = self._settings, self._store
        places = index.draw(rows, settings.neighbours.positives, generator)
        crops = torch.cat([anchors, self._split.training[places]]).numpy()
        return Draw(
            torch.from_numpy(store.features[crops]),
            torch.from_numpy(store.nearness[crops]),
            torch.from_numpy(store.focal[crops]),
            torch.from_numpy(store.centres[crops]),
            draw_derangements(len(anchors), settings.correspondence.negatives, generator),
            draw_kept(len(crops), store.dimension, settings.dropout, generator),
            generator,
        )

    def _find_neighbours(self) -> tuple[NeighbourIndex, NeighbourIndex]:
        """Training crops that resemble training crops, and those that resemble held-out crops."""
        own, training, held_out = self._settings.neighbours, self._split.training, self._split.held_out
        means = torch.from_numpy(self._store.means).to(self._device)
        image = torch.from_numpy(self._store.image)
        groups = torch.arange(len(image)) if own.same_image else image
        count = max(own.stored, own.positives)
        candidates, candidate_groups = means[training.to(self._device)], groups[training]
        first, second = (
            find_neighbours(
                means[queries.to(self._device)],
                candidates,
                count,
                query_groups=groups[queries],
                candidate_groups=candidate_groups,
            )
            for queries in (training, held_out)
        )
        return first, second

    def _choose_shifts(self) -> tuple[float, float, float] | None:
        if not self._settings.correspondence.auto_shifts:
            return None
        objective = CodeObjective(self._settings, self._store.n_geometry)
        targets = []
        for number in range(SHIFT_BATCHES):
            draw = self.draw(-1 - number)
            batch = self._to_batch(draw)
            targets.append(objective.targets(batch, objective.draw_positions(batch, 0, draw.generator)))
        return measured_shifts(targets, self._settings)

    def _train(self) -> bool:
        """Train to the end, or to the end of the time: then false."""
        settings = self._settings
        means = RunningMeans()
        compared = set(comparison_steps(settings.steps, settings.selection.checkpoints))
        bar = progress(
            range(self._step, settings.steps), label=NAME, total=settings.steps - self._step, unit="step"
        )
        for step, draw in zip(bar, self._read_ahead(range(self._step, settings.steps)), strict=True):
            assert isinstance(step, int)
            try:
                losses = self._take_step(step, draw)
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    f"{NAME}: the device ran out of memory at step {step} with {tuple(draw.features.shape)} "
                    f"features; lower {NAME}.batch_size or {NAME}.correspondence.positions"
                ) from error
            means.add(losses)
            self._step = step + 1
            is_compared = self._step in compared
            is_saved = is_compared or self._step % settings.checkpoint_every == 0
            if not is_saved and self._step % settings.log_every:
                continue
            self._add_row({name: float(value) for name, value in means.take().items()})
            self._describe(bar)
            if is_compared:
                self._compare()
            is_late = time.monotonic() > self._deadline
            if is_saved or is_late:
                self._save()
            if is_late and self._step < settings.steps:
                return False
        return True

    def _take_step(self, step: int, draw: Draw) -> dict[str, Tensor]:
        batch = self._to_batch(draw)
        codes = self._head(batch.features, draw.kept.to(self._device))
        judgement = self._objective.judge(batch, codes, step, draw.generator)
        clusters = clustering_loss(codes[: len(codes) // 2], self._prototypes)
        self._optimiser.zero_grad(set_to_none=True)
        (judgement.total + clusters).backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return {"total": judgement.total.detach(), **judgement.losses, "clusters": clusters.detach()}

    def _read_ahead(self, steps: range) -> Iterator[Draw]:
        """The draws of the steps in order; the next one is read from the disk meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            waiting: Future[Draw] | None = pool.submit(self.draw, steps.start) if len(steps) else None
            for step in steps:
                assert waiting is not None
                draw = waiting.result()
                waiting = pool.submit(self.draw, step + 1) if step + 1 < steps.stop else None
                yield draw

    def _to_batch(self, draw: Draw) -> Batch:
        parts = (draw.features, draw.nearness, draw.focal, draw.centres, draw.derangements)
        features, nearness, focal, centres, derangements = (
            part.to(self._device, non_blocking=True) for part in parts
        )
        return Batch(features.float(), nearness, focal, centres, derangements)

    @torch.no_grad()
    def _compare(self) -> None:
        """Judge the present state on held-out crops, and keep it if it is the best so far."""
        own = self._settings.selection
        judgements = [self._judge_held_out(number) for number in range(HELD_OUT_BATCHES)]
        loss = float(torch.stack([judgement.total for judgement in judgements]).mean())
        labels = label_twice(
            self._head,
            self._store,
            self._split,
            self._n_prototypes,
            own.n_vectors,
            own.restarts,
            self._seed,
        )
        check = {
            "loss": round(loss, DIGITS),
            "stability": round(adjusted_rand_index(*labels), DIGITS),
            "information": round(mutual_information(*labels), DIGITS),
        }
        self._checks.append({"step": self._step, **check, "histograms": count_correlations(judgements)})
        score = -check["loss"] if own.criterion == "loss" else check[own.criterion]
        if self._best is None or score > self._best["score"]:
            self._best = {
                "step": self._step,
                "score": score,
                "head": {name: value.detach().clone() for name, value in self._head.state_dict().items()},
                "prototypes": self._prototypes.detach().clone(),
            }

    def _judge_held_out(self, number: int) -> Judgement:
        """The same pairs and positions whenever it is asked, nothing decayed, no dropout."""
        generator = torch_generator(self._seed, NAME, "held out", number)
        rows = torch.randperm(len(self._split.held_out), generator=generator)[: self._settings.batch_size]
        if len(rows) < 2:
            # A single held-out crop meets itself as a stranger's twin.
            rows = rows.repeat(2)
        draw = self._read(self._split.held_out[rows], rows, self._held_out_neighbours, generator)
        batch = self._to_batch(draw)
        return self._objective.judge(batch, self._head(batch.features), 0, generator)

    def _add_row(self, losses: Mapping[str, float]) -> None:
        if not np.isfinite(list(losses.values())).all():
            values = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
            raise DataError(
                f"{NAME}: a loss is not finite before step {self._step} ({values}); the last state is kept. "
                f"Lower {NAME}.learning_rate"
            )
        row = dict.fromkeys(COLUMNS[1:], 0.0) | {name: round(value, DIGITS) for name, value in losses.items()}
        self._curve.append({"step": float(self._step), **row})
        if self._log is not None:
            self._log(self._step, row)

    def _describe(self, bar: object) -> None:
        """Losses beside the time left, where there is a bar."""
        if (show := getattr(bar, "set_postfix_str", None)) is not None:
            row = self._curve[-1]
            show(", ".join(f"{name} {row[name]:.4f}" for name in COLUMNS[1:] if row[name]), refresh=False)

    def _save(self) -> None:
        save_state(
            self._folder,
            {
                "step": self._step,
                "head": self._head.state_dict(),
                "prototypes": self._prototypes.detach(),
                "optimiser": self._optimiser.state_dict(),
                "curve": self._curve,
                "checks": self._checks,
                "best": self._best,
            },
        )

    def _restore(self) -> None:
        if (state := load_state(self._folder)) is None:
            return
        self._step, self._curve, self._checks = state["step"], state["curve"], state["checks"]
        self._best = state["best"]
        self._head.load_state_dict(state["head"])
        with torch.no_grad():
            self._prototypes.copy_(state["prototypes"])
        self._optimiser.load_state_dict(state["optimiser"])


def train_codes(
    items: Sequence[CodeImage],
    features: Backbone,
    settings: CodeSettings,
    *,
    n_pseudo_classes: int,
    seed: int,
    device: torch.device,
    cache_dir: Path,
    key: Mapping[str, Any] | None = None,
    log: Log | None = None,
    max_seconds: float = 0.0,
) -> TrainedCodes:
    """Distil features into codes and prototypes; continues an interrupted run of the same settings.

    Every step depends on the seed and its number alone: on the CPU with a fixed number of threads, interrupted and
    resumed gives the bits of an uninterrupted run.

    Args:
        items: Images with disparity; see ``feature_store.open_store``.
        features: Frozen backbone, on ``device``.
        settings: Section ``codes``.
        n_pseudo_classes: K, the number of prototypes.
        seed: The experiment's.
        device: Where to train.
        cache_dir: Where features and resumable state go.
        key: What else the result depends on, such as the version of the code; another key is another run.
        log: Takes step and losses.
        max_seconds: Stop after this time with the state saved; 0 never stops.

    Raises:
        DataError: Fewer than two images, features or a loss that are not finite, or more prototypes than codes.
        ShapeError: Images and disparities do not fit each other.
        ConfigError: Settings contradict each other, or memory ran out.
    """
    if len(items) < 2:
        raise DataError(
            f"codes need at least two images, one of them held out for the selection. Got: {len(items)}"
        )
    store = open_store(
        items,
        features,
        settings.crops,
        mirrored=held_out_images(len(items), settings.selection.held_out),
        folder=cache_dir / FEATURE_FOLDER,
        device=device,
        nearest=settings.depth.as_published,
        key=key,
    )
    check_settings(settings, store)
    whole_key = {
        "settings": dataclasses.asdict(settings),
        "n_pseudo_classes": n_pseudo_classes,
        "seed": seed,
        "store": store.name,
        "key": dict(key or {}),
    }
    training = CodeTraining(
        store,
        settings,
        n_pseudo_classes=n_pseudo_classes,
        seed=seed,
        device=device,
        folder=state_folder(cache_dir, whole_key),
        log=log,
        max_seconds=max_seconds,
    )
    return training.run()


def forget_codes(cache_dir: Path) -> None:
    """Delete what ``train_codes`` left in its cache: stored features and resumable states, of other settings too."""
    forget_store(cache_dir / FEATURE_FOLDER)
    shutil.rmtree(cache_dir, ignore_errors=True)


def check_settings(settings: CodeSettings, store: FeatureStore) -> None:
    """Raise on values that cannot work with the stored crops.

    Raises:
        ConfigError: With the key's full path.
    """
    h, w = store.grid
    side = settings.correspondence.positions
    if settings.depth.sampling == "farthest" and side * side > h * w:
        raise ConfigError(
            f"{NAME}.correspondence.positions is {side}, so {side * side} farthest points, but a crop has only "
            f"{h} x {w} cells; lower it, or enlarge {NAME}.crops"
        )


def comparison_steps(steps: int, count: int) -> list[int]:
    """``count`` steps, evenly spread; the last step is one of them."""
    return sorted({max(1, round(steps * (place + 1) / count)) for place in range(count)})
