"""The training of a network of displacements on pairs of images alone: the loop and its second phase."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gestalt.data.curve import DIGITS, RunningMeans
from gestalt.data.training_state import load_state, save_state, state_folder
from gestalt.errors import ConfigError, DataError
from gestalt.matching.colour_changes import draw_colour_changes, draw_rectangles
from gestalt.matching.crop_placement import draw_placement
from gestalt.matching.multi_frame import fuse_frames
from gestalt.matching.smurf import Augmentation, crop_labels, make_batch, smurf_losses, supervised_losses
from gestalt.matching.smurf_records import (
    COLUMNS,
    CurveRow,
    Log,
    label_path,
    read_label,
    write_label,
)
from gestalt.matching.training_pairs import TrainingPairs
from gestalt.runtime import derive_seed, numpy_generator, progress, torch_generator, uses_bf16

if TYPE_CHECKING:
    from gestalt.config.optical_flow import OpticalFlowSettings

NAME = "optical_flow"
# Steps whose pairs are read ahead.
AHEAD = 8
FIRST, SECOND = 1, 2


@dataclass(frozen=True, eq=False)
class Draw:
    """What a step learns from, before the device has it.

    Attributes:
        images: (B, 2, H, W, 3) uint8 RGB, on the CPU.
        augmentations: One per pair.
        labels: (B, 2, H, W) float32, pixels, and (B, H, W) bool, on the CPU; None in the first phase.
    """

    images: Tensor
    augmentations: list[Augmentation]
    labels: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class Phase:
    """A part of the training with its own schedule and its own optimiser.

    Attributes:
        number: 1 or 2.
        steps: Optimiser steps.
        decay_start: Step from which the step size falls.
        decay_steps: Steps in which it halves.
    """

    number: int
    steps: int
    decay_start: int
    decay_steps: int

    def learning_rate(self, step: int, first: float) -> float:
        """Step size: ``first`` up to the start of the decay, then halved every ``decay_steps``, continuously."""
        return float(first * 0.5 ** (max(0, step - self.decay_start) / self.decay_steps))


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """What a training leaves.

    Attributes:
        network: In evaluation mode.
        curve: A row per ``log_every`` steps.
        folder: Cache of the resumable state; forget it when the network is saved.
        is_finished: False where time ran out; the same call goes on from the state.
    """

    network: nn.Module
    curve: list[CurveRow]
    folder: Path
    is_finished: bool


class SmurfTraining:
    """A training of one network on one set of pairs.

    Args:
        pairs: The training set.
        settings: Section ``optical_flow``.
        seed: The experiment's.
        device: Where to train.
        folder: Of the resumable state and the labels of the second phase.
        make_network: Makes a network with random weights.
        log: Takes step and losses.
        max_seconds: Stop after this time with the state saved; 0 never stops.
    """

    def __init__(
        self,
        pairs: TrainingPairs,
        settings: OpticalFlowSettings,
        *,
        seed: int,
        device: torch.device,
        folder: Path,
        make_network: Callable[[], nn.Module],
        log: Log | None = None,
        max_seconds: float = 0.0,
    ) -> None:
        self._pairs, self._settings, self._seed, self._device = pairs, settings, seed, device
        self._folder, self._make_network, self._log = folder, make_network, log
        self._is_half = uses_bf16(settings.precision, device)
        self._deadline = time.monotonic() + max_seconds if max_seconds else float("inf")
        self._middles = pairs.middles()
        second = settings.multi_frame
        self._phases = [Phase(FIRST, settings.steps, settings.decay_start, settings.decay_steps)]
        if second.enabled:
            if len(self._middles) == 0:
                raise DataError(
                    f"{NAME}.multi_frame needs pairs whose frame before is there too. Got: none; train on "
                    f"sequences of three frames or more, or set {NAME}.multi_frame.enabled=false"
                )
            self._phases.append(Phase(SECOND, second.steps, second.decay_start, second.decay_steps))
        self._phase, self._step = self._phases[0], 0
        self.curve: list[CurveRow] = []
        self._begin_phase(from_scratch=True)

    def run(self) -> TrainedNetwork:
        """Train all phases, going on from a saved state.

        Raises:
            DataError: A loss is not finite, an image cannot be read, or the state is damaged.
            ConfigError: The device has not enough memory.
        """
        self._restore()
        is_finished = self._train_phase()
        if is_finished and self._phase != self._phases[-1]:
            is_finished = self._make_labels()
            if is_finished:
                self._phase, self._step = self._phases[-1], 0
                self._begin_phase(from_scratch=self._settings.multi_frame.from_scratch)
                is_finished = self._train_phase()
        return TrainedNetwork(self._network.eval(), self.curve, self._folder, is_finished)

    def draw(self, phase: int, step: int) -> Draw:
        """The pairs of a step; seed, phase and step alone decide."""
        settings, size = self._settings, (self._settings.crop.height, self._settings.crop.width)
        generator = numpy_generator(self._seed, NAME, phase, step)
        if phase == FIRST:
            indices = self._pairs.draw(settings.batch_size, settings.stereo_share, generator)
        else:
            indices = self._middles[generator.integers(len(self._middles), size=settings.batch_size)]
        augmentations = []
        for _ in indices:
            placement = draw_placement(self._pairs.size, settings.crop, generator)
            first, second = draw_colour_changes(settings.colour, generator)
            erased = draw_rectangles(size, settings.colour, generator)
            augmentations.append(Augmentation(placement, first, second, erased))
        images = torch.from_numpy(np.stack([self._pairs.load(int(index)) for index in indices]))
        return Draw(images, augmentations, None if phase == FIRST else self._read_labels(indices))

    def _begin_phase(self, *, from_scratch: bool) -> None:
        if from_scratch:
            torch.manual_seed(derive_seed(self._seed, NAME, "initial", self._phase.number))
            self._network = self._make_network().to(self._device)
        self._network.train()
        self._optimiser = torch.optim.Adam(self._network.parameters(), self._settings.learning_rate)

    def _train_phase(self) -> bool:
        """Train to the end of the phase, or to the end of the time: then false."""
        settings, phase = self._settings, self._phase
        means = RunningMeans()
        steps = range(self._step, phase.steps)
        bar = progress(steps, label=f"{NAME} {phase.number}", unit="step")
        for step, draw in zip(bar, self._read_ahead(steps), strict=True):
            try:
                losses = self._take_step(step, draw)
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    f"{NAME}: the device ran out of memory at step {step} with {tuple(draw.images.shape)} images; "
                    f"lower {NAME}.batch_size or {NAME}.crop"
                ) from error
            means.add(losses)
            self._step = step + 1
            is_row = self._step % settings.log_every == 0
            is_due = self._step % settings.checkpoint_every == 0 or self._step == phase.steps
            is_late = is_row and time.monotonic() > self._deadline
            if is_row or is_due:
                self._add_row({name: float(value) for name, value in means.take().items()})
                self._describe(bar)
            if is_due or is_late:
                self._save()
            if is_late and self._step < phase.steps:
                return False
        return True

    def _take_step(self, step: int, draw: Draw) -> dict[str, Tensor]:
        """Change the weights once; the losses of the step and their sum, without gradients."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._phase.learning_rate(step, self._settings.learning_rate)
        # Crops have one size, so measuring once which convolution is fastest pays; a CPU ignores it.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
            losses = self._supervised(draw) if draw.labels is not None else self._unsupervised(step, draw)
            total = torch.stack(list(losses.values())).sum()
            self._optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._network.parameters(), self._settings.clip_norm)
            self._optimiser.step()
        return {name: value.detach() for name, value in {**losses, "total": total}.items()}

    def _read_ahead(self, steps: range) -> Iterator[Draw]:
        """The draws of the steps in order; those of later steps are prepared meanwhile."""
        with ThreadPoolExecutor(self._settings.loader_threads) as pool:
            waiting: deque[Future[Draw]] = deque()
            try:
                for step in steps:
                    while len(waiting) < min(AHEAD, steps.stop - step):
                        waiting.append(pool.submit(self.draw, self._phase.number, step + len(waiting)))
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _unsupervised(self, step: int, draw: Draw) -> dict[str, Tensor]:
        batch = make_batch(self._to_device(draw.images), draw.augmentations, self._settings.crop)
        return smurf_losses(self._in_precision, batch, self._settings, step)

    def _supervised(self, draw: Draw) -> dict[str, Tensor]:
        assert draw.labels is not None
        # Labels already know what lies beyond the crop.
        crop = dataclasses.replace(self._settings.crop, context_rows_px=0, context_columns_px=0)
        batch = make_batch(self._to_device(draw.images), draw.augmentations, crop)
        optical_flow, known = (self._to_device(values) for values in draw.labels)
        labels, seen = crop_labels(optical_flow, known, draw.augmentations, crop)
        return supervised_losses(self._in_precision, batch, labels, seen, self._settings)

    def _make_labels(self) -> bool:
        """Fuse the displacements of all frames with a frame before; false where time ran out."""
        self._network.eval()
        own, middles = self._settings.multi_frame, self._middles
        starts = range(0, len(middles), own.frames_at_once)
        for start in progress(starts, label=f"{NAME} labels", unit="group"):
            group = [int(index) for index in middles[start : start + own.frames_at_once]]
            paths = [label_path(self._folder, index) for index in group]
            if all(path.exists() for path in paths):
                continue
            if time.monotonic() > self._deadline:
                return False
            generator = torch_generator(self._seed, NAME, "fit", group[0])
            fused = fuse_frames(
                self._in_precision, self._load_triplets(group), own, self._settings.occlusion, generator
            )
            for path, optical_flow, known in zip(paths, fused.optical_flow, fused.known, strict=True):
                write_label(path, optical_flow, known)
        return True

    def _load_triplets(self, group: list[int]) -> Tensor:
        """(G, 3, 3, H, W) float32 RGB in [0, 1]: the frames t-1, t, t+1 of pairs (t, t+1)."""
        before = [self._pairs.load(int(self._pairs.previous[index]))[0] for index in group]
        pairs = [self._pairs.load(index) for index in group]
        frames = np.stack([np.stack([first, *pair]) for first, pair in zip(before, pairs, strict=True)])
        return self._to_device(torch.from_numpy(frames)).permute(0, 1, 4, 2, 3).to(torch.float32).div(255)

    def _read_labels(self, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        labels = [read_label(label_path(self._folder, int(index))) for index in indices]
        return torch.stack([optical_flow for optical_flow, _ in labels]), torch.stack(
            [known for _, known in labels]
        )

    def _in_precision(self, first: Tensor, second: Tensor, updates: int) -> list[Tensor]:
        """The network in bf16 where that is wanted; losses stay in fp32."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._is_half):
            found: list[Tensor] = self._network(first, second, updates)
        return found

    def _to_device(self, values: Tensor) -> Tensor:
        if self._device.type == "cpu":
            return values
        return values.pin_memory().to(self._device, non_blocking=True)

    def _add_row(self, losses: Mapping[str, float]) -> None:
        number, rate = self._phase.number, self._optimiser.param_groups[0]["lr"]
        if not np.isfinite(list(losses.values())).all():
            values = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
            raise DataError(
                f"{NAME}: a loss is not finite before step {self._step} of phase {number} ({values}); the last "
                f"state is kept. Lower {NAME}.learning_rate"
            )
        if number == FIRST and losses["census"] == 0 and self._settings.census.weight:
            # A loss over no pixel is exactly 0 and has no gradient: nothing would ever bring displacements back.
            raise DataError(
                f"{NAME}: before step {self._step} no pixel was left to compare, so displacements lead out of the "
                f"images. The last state is kept; delete {self._folder} and lower {NAME}.learning_rate, or "
                f"give more context: {NAME}.crop.context_rows_px and context_columns_px"
            )
        # Both phases are one curve.
        step = self._step + (self._settings.steps if number == SECOND else 0)
        row = dict.fromkeys(COLUMNS, 0.0) | {name: round(value, DIGITS) for name, value in losses.items()}
        self.curve.append(row | {"step": float(step), "phase": float(number), "learning_rate": rate})
        if self._log is not None:
            self._log(step, {name: self.curve[-1][name] for name in COLUMNS[1:]})

    def _describe(self, bar: object) -> None:
        """Losses beside the time left, where there is a bar."""
        if (show := getattr(bar, "set_postfix_str", None)) is not None:
            row = self.curve[-1]
            show(", ".join(f"{name} {row[name]:.4f}" for name in COLUMNS[2:-1] if row[name]), refresh=False)

    def _save(self) -> None:
        save_state(
            self._folder,
            {
                "phase": self._phase.number,
                "step": self._step,
                "network": self._network.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "curve": self.curve,
            },
        )

    def _restore(self) -> None:
        if (state := load_state(self._folder)) is None:
            return
        self._phase, self._step, self.curve = self._phases[state["phase"] - 1], state["step"], state["curve"]
        self._network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])


def train_optical_flow(
    pairs: TrainingPairs,
    settings: OpticalFlowSettings,
    *,
    seed: int,
    device: torch.device,
    cache_dir: Path,
    key: Mapping[str, Any] | None = None,
    make_network: Callable[[], nn.Module] | None = None,
    log: Log | None = None,
    max_seconds: float = 0.0,
) -> TrainedNetwork:
    """Train a network of displacements without labels; continues an interrupted run of the same settings.

    On the CPU with a fixed number of threads, interrupted and resumed gives the bits of an uninterrupted run.

    Args:
        pairs: The training set.
        settings: Section ``optical_flow``.
        seed: The experiment's.
        device: Where to train.
        cache_dir: Where resumable state goes.
        key: What the pairs depend on, such as fingerprints; another key is another run.
        make_network: Makes the network; RAFT of ``settings.variant`` where left out.
        log: Takes step and losses.
        max_seconds: Stop after this time with the state saved; 0 never stops.

    Raises:
        DataError: A loss is not finite, or an image cannot be read.
        ConfigError: Settings contradict each other, or memory ran out.
    """
    check_settings(settings)
    whole_key = {
        "settings": dataclasses.asdict(settings),
        "n_pairs": len(pairs),
        "size": pairs.size,
        "seed": seed,
        "inputs": dict(key or {}),
    }
    training = SmurfTraining(
        pairs,
        settings,
        seed=seed,
        device=device,
        folder=state_folder(cache_dir, whole_key),
        make_network=make_network or _raft_maker(settings.variant),
        log=log,
        max_seconds=max_seconds,
    )
    return training.run()


def check_settings(settings: OpticalFlowSettings) -> None:
    """Raise on values that cannot work together.

    Raises:
        ConfigError: With the key's full path.
    """
    crop = settings.crop
    if crop.height % 8 or crop.width % 8:
        raise ConfigError(
            f"{NAME}.crop.height and width must be multiples of 8. Got: {crop.height} x {crop.width}"
        )
    if settings.self_supervision.weight and 2 * settings.self_supervision.margin_px >= min(
        crop.height, crop.width
    ):
        raise ConfigError(
            f"{NAME}.self_supervision.margin_px must leave something of a crop of {crop.height} x {crop.width}. "
            f"Got: {settings.self_supervision.margin_px}"
        )
    levels = settings.coarse_start.levels
    smallest = min(crop.height, crop.width) // 2**levels
    if smallest <= settings.census.patch_px:
        raise ConfigError(
            f"{NAME}.coarse_start.levels must leave more than {NAME}.census.patch_px ({settings.census.patch_px}) "
            f"pixels of a crop of {crop.height} x {crop.width}. Got: {levels}, which leave {smallest}"
        )
    if crop.scale_low_log2 > crop.scale_high_log2:
        raise ConfigError(
            f"{NAME}.crop.scale_low_log2 must not exceed scale_high_log2. "
            f"Got: {crop.scale_low_log2} and {crop.scale_high_log2}"
        )


def _raft_maker(variant: str) -> Callable[[], nn.Module]:
    # Its blocks bring torchvision, which takes seconds to import.
    from gestalt.matching.raft import Raft

    return lambda: Raft(variant)
