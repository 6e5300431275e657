"""The training of a vision transformer on frames alone: self-distillation, resumable, on one device or several."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gestalt.data.curve import DIGITS, RunningMeans
from gestalt.data.ranks import Ranks
from gestalt.data.training_state import load_state, save_state, state_folder
from gestalt.errors import ConfigError, DataError
from gestalt.features.dense import normalise
from gestalt.features.distillation import (
    Answers,
    DistilledNetwork,
    clip_each,
    cosine,
    cross_view_loss,
    move_centre,
    move_teacher,
    place_losses,
    straight,
    teacher_distribution,
    vit_layout,
    weight_groups,
)
from gestalt.features.distillation_monitors import MEASURES, NAME, check_curve, measure
from gestalt.features.multi_crop import GLOBAL_VIEWS, Views, crop_frames, draw_views, overlap_places
from gestalt.features.training_images import TrainingImages
from gestalt.features.view_colours import ColourTable, change_view_colours, draw_colours
from gestalt.features.vit import VisionTransformer
from gestalt.runtime import derive_seed, numpy_generator, progress, uses_bf16

if TYPE_CHECKING:
    from gestalt.config.distillation import DistillationSettings

LOSSES = ("total", "views", "places")
COLUMNS = ("step", *LOSSES, *MEASURES, "gradient_norm", "learning_rate")
# DINO states its step size for so many images.
LEARNING_RATE_IMAGES = 256

# A row of the curve: what there is of the columns.
CurveRow = dict[str, float]
Log = Callable[[int, CurveRow], None]


@dataclass(frozen=True, eq=False)
class Draw:
    """What a step, or a part of it, learns from, before the device has it.

    Attributes:
        frames: (B,) numbers of frames.
        global_views: Where the global crops lie.
        local_views: Where the local crops lie.
        global_colours: Rows (2, B, 7).
        local_colours: Rows (L, B, 7).
        places: (2, B, P, 2) float, places that both global crops show.
        counts: (B,) float, the share of an image in the loss of places: 0 where the crops hardly overlap. Those of
            a step sum to 1.
        pixels: (B, H, W, 3) uint8 RGB of these frames; None where the device has all frames.
    """

    frames: npt.NDArray[np.int64]
    global_views: Views
    local_views: Views
    global_colours: ColourTable
    local_colours: ColourTable
    places: npt.NDArray[np.float64]
    counts: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.uint8] | None = None

    def of(self, images: slice) -> Draw:
        """The part of some of the images."""
        return Draw(
            self.frames[images],
            self.global_views.of(images),
            self.local_views.of(images),
            self.global_colours.of(images),
            self.local_colours.of(images),
            self.places[:, images],
            self.counts[images],
            None if self.pixels is None else self.pixels[images],
        )


@dataclass(frozen=True, eq=False)
class TrainedBackbone:
    """What a training leaves.

    Attributes:
        backbone: The teacher's, in evaluation mode.
        curve: A row per ``log_every`` steps.
        folder: Cache of the resumable state; forget it when the features are saved.
        is_finished: False where time ran out; the same call goes on from the state.
        images_per_second: Of this call, over all processes; 0 where it took no step.
    """

    backbone: VisionTransformer
    curve: list[CurveRow]
    folder: Path
    is_finished: bool
    images_per_second: float


class DistillationTraining:
    """A training of one backbone on one set of frames.

    Args:
        images: The training set.
        settings: Section ``distillation``.
        seed: The experiment's.
        device: Where to train.
        folder: Of the resumable state.
        ranks: This process among those that train together.
        log: Takes step and row, in the first process.
        max_seconds: Stop after this time with the state saved; 0 never stops.
    """

    def __init__(
        self,
        images: TrainingImages,
        settings: DistillationSettings,
        *,
        seed: int,
        device: torch.device,
        folder: Path,
        ranks: Ranks | None = None,
        log: Log | None = None,
        max_seconds: float = 0.0,
    ) -> None:
        self._images, self._settings, self._seed, self._device = images, settings, seed, device
        self._folder, self._ranks, self._log = folder, ranks or Ranks(), log
        self._is_half = uses_bf16(settings.precision, device)
        self._deadline = time.monotonic() + max_seconds if max_seconds else float("inf")
        self._frames = _as_tensor(images.frames).to(device) if settings.images_on_device else None
        # Weights are drawn on the CPU, so that they do not depend on the device.
        torch.manual_seed(derive_seed(seed, NAME, "initial"))
        network = DistilledNetwork(settings, settings.vit.drop_path)
        self._teacher = DistilledNetwork(settings).requires_grad_(False)
        self._teacher.load_state_dict(network.state_dict())
        self._network, self._teacher = network.to(device).train(), self._teacher.to(device).eval()
        is_alone = self._ranks.size == 1
        parallel = None if is_alone else DistributedDataParallel(self._network)
        self._student: nn.Module = parallel or self._network
        # Gradients of the parts of a step are exchanged once, with the last one.
        self._unsynchronised = parallel.no_sync if parallel else contextlib.nullcontext
        outputs = settings.projection.outputs
        self._centre, self._place_centre = (torch.zeros(outputs, device=device) for _ in range(2))
        self._optimiser = torch.optim.AdamW(weight_groups(self._network), fused=device.type != "cpu")
        self._step = 0
        self.curve: list[CurveRow] = []

    def run(self) -> TrainedBackbone:
        """Train, going on from a saved state.

        Raises:
            DataError: A loss is not finite, a monitor gives up, or the state is damaged.
            ConfigError: The device has not enough memory.
        """
        self._restore()
        first, started = self._step, time.perf_counter()
        is_finished = self._train()
        seconds = time.perf_counter() - started
        n_images = (self._step - first) * self._settings.batch_size
        backbone = self._teacher.backbone
        return TrainedBackbone(backbone, self.curve, self._folder, is_finished, n_images / max(seconds, 1e-9))

    def draw(self, step: int) -> Draw:
        """Frames and crops of this process in a step; seed and step alone decide."""
        settings, n = self._settings, self._settings.batch_size
        generator = numpy_generator(self._seed, NAME, step)
        global_views, local_views = draw_views(self._images.size, settings.views, n, generator)
        n_local = settings.views.local_count
        colours = draw_colours(settings.colour, GLOBAL_VIEWS, n_local, n, generator)
        places, shared = overlap_places(global_views, settings.dense.points, settings.dense.min_side_share)
        counts = shared / max(1, shared.sum())
        whole = Draw(self._frames_of(step), global_views, local_views, *colours, places, counts)
        own = whole.of(self._ranks.part(n))
        return (
            own
            if self._frames is not None
            else dataclasses.replace(own, pixels=self._images.frames[own.frames])
        )

    def make_views(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Crops as the network is given them: (2, B, 3, S, S) global ones and (L, B, 3, s, s) local ones."""
        views = self._settings.views
        if self._frames is None:
            assert draw.pixels is not None
            frames = _to_device(draw.pixels, self._device)
        else:
            frames = self._frames[_to_device(draw.frames, self._device)]
        frames = frames.permute(0, 3, 1, 2).float().div_(255)
        return (
            self._make_crops(frames, draw.global_views, draw.global_colours, views.global_px),
            self._make_crops(frames, draw.local_views, draw.local_colours, views.local_px),
        )

    def _make_crops(self, frames: Tensor, views: Views, colours: ColourTable, side: int) -> Tensor:
        n_views = views.boxes.shape[1]
        if n_views == 0:
            return frames.new_zeros(0, len(frames), 3, side, side)
        boxes, mirrored = _to_device(views.boxes.astype(np.float32), self._device), views.mirrored
        crops = crop_frames(frames, boxes, _to_device(mirrored, self._device), side).flatten(0, 1)
        table = _to_device(colours.values, self._device).flatten(0, 1)
        changed = normalise(change_view_colours(crops, table, colours.order))
        return changed.view(n_views, len(frames), 3, side, side)

    def _frames_of(self, step: int) -> npt.NDArray[np.int64]:
        """Numbers of a step's frames: each epoch shows every usable frame once, in an order of its own."""
        n, batch = len(self._images), self._settings.batch_size
        epochs, places = np.divmod(np.arange(step * batch, (step + 1) * batch), n)
        orders = {
            int(epoch): numpy_generator(self._seed, NAME, "epoch", int(epoch)).permutation(n)
            for epoch in set(epochs)
        }
        order = np.array([orders[int(epoch)][place] for epoch, place in zip(epochs, places)], np.int64)
        return self._images.usable[order]

    def _train(self) -> bool:
        """Train to the end, or to the end of the time: then false."""
        settings = self._settings
        means = RunningMeans()
        steps = range(self._step, settings.steps)
        bar = progress(steps, label=NAME, unit="step") if self._ranks.is_first else steps
        for step, draw in zip(bar, self._read_ahead(steps), strict=True):
            is_due = (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps
            is_row = (step + 1) % settings.log_every == 0 or is_due
            try:
                losses, measures = self.take_step(step, draw, measured=is_row)
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    f"{NAME}: the device ran out of memory at step {step}; set {NAME}.images_at_once (a step then adds "
                    f"up several passes), or lower {NAME}.views.global_px"
                ) from error
            means.add(losses)
            self._step = step + 1
            if not is_row:
                continue
            self._add_row(means.take() | measures)
            self._describe(bar)
            is_late = self._ranks.any(time.monotonic() > self._deadline, self._device)
            if is_due or is_late:
                self._save()
            # After the state, which is what a person looks at to see why.
            check_curve(self.curve, settings.monitors, settings.projection.outputs)
            if is_late and self._step < settings.steps:
                return False
        return True

    def take_step(
        self, step: int, draw: Draw, *, measured: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Change the weights once; the losses of this process's part, and its measures where they are wanted."""
        settings = self._settings.optimiser
        self._set_rates(step)
        torch.manual_seed(derive_seed(self._seed, NAME, "paths", step, self._ranks.rank))
        self._optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        measures: dict[str, Tensor] = {}
        for part, share, is_last in self._parts(draw):
            with contextlib.nullcontext() if is_last else self._unsynchronised():
                found, seen = self._learn(part, share, step, measured=measured and is_last)
            for name, value in found.items():
                sums[name] = sums[name] + value if name in sums else value
            measures |= seen
        sums["gradient_norm"] = clip_each(self._network.parameters(), settings.clip_norm)
        if step < settings.frozen_steps:
            for head in (self._network.head, self._network.place_head):
                if head is not None:
                    head.directions.grad = None
        self._optimiser.step()
        move_teacher(self._teacher, self._network, self._teacher_momentum(step))
        momentum = self._settings.temperature.centre_momentum
        move_centre(self._centre, self._ranks.mean(sums.pop("logits")), momentum)
        if "place_logits" in sums:
            move_centre(self._place_centre, self._ranks.mean(sums.pop("place_logits")), momentum)
        return sums, measures

    def _read_ahead(self, steps: range) -> Iterator[Draw]:
        """The draws of the steps in order; the next one is prepared meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(self.draw, step) for step in steps[:1]]
            for number in range(len(steps)):
                waiting += [pool.submit(self.draw, later) for later in steps[number + 1 : number + 2]]
                yield waiting.pop(0).result()

    def _parts(self, own: Draw) -> Iterator[tuple[Draw, float, bool]]:
        """Parts of a step that the device takes at once, each one's share of the images, whether it is the last."""
        n = len(own.frames)
        at_once = self._settings.images_at_once or n
        for start in range(0, n, at_once):
            stop = min(n, start + at_once)
            yield own.of(slice(start, stop)), (stop - start) / n, stop == n

    def _learn(
        self, part: Draw, share: float, step: int, *, measured: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Add the gradients of a part of the step; its share of the losses and of the teacher's mean logits."""
        settings, temperatures = self._settings, self._settings.temperature
        global_views, local_views = self.make_views(part)
        places = _to_device(part.places.astype(np.float32), self._device)
        sharpness = straight(
            step, temperatures.warm_up_steps, temperatures.teacher_first, temperatures.teacher
        )
        with torch.no_grad():
            taught = self._in_precision(self._teacher, global_views, None, places, attention=measured)
            distributions = teacher_distribution(taught.logits, self._centre, sharpness)
        answers = self._in_precision(self._student, global_views, local_views, places)
        views = share * cross_view_loss(answers.logits, distributions, temperatures.student)
        losses = {"total": views, "views": views, "logits": share * taught.logits.float().mean((0, 1))}
        place_distributions = None
        if answers.place_logits is not None and taught.place_logits is not None:
            place_distributions = teacher_distribution(taught.place_logits, self._place_centre, sharpness)
            per_image = place_losses(answers.place_logits, place_distributions, temperatures.student)
            # Counts of all processes sum to 1, and gradients are averaged over processes.
            counts = _to_device((part.counts * self._ranks.size).astype(np.float32), self._device)
            losses["places"] = (per_image * counts).sum()
            losses["total"] = views + settings.dense.weight * losses["places"]
            losses["place_logits"] = share * taught.place_logits.float().mean((0, 1, 2))
        losses["total"].backward()  # type: ignore[no-untyped-call]
        measures = measure(taught, distributions, place_distributions) if measured else {}
        return {name: value.detach() for name, value in losses.items()}, measures

    def _in_precision(self, network: nn.Module, *views: Tensor | None, attention: bool = False) -> Answers:
        """A network in bf16 where that is wanted; losses stay in fp32."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._is_half):
            answers: Answers = network(*views, attention=attention)
        return answers

    def _set_rates(self, step: int) -> None:
        settings, n_steps = self._settings.optimiser, self._settings.steps
        largest = settings.learning_rate * self._settings.batch_size / LEARNING_RATE_IMAGES
        rate = cosine(step, n_steps, largest, settings.final_learning_rate, settings.warm_up_steps)
        decay = cosine(step, n_steps, settings.weight_decay, settings.final_weight_decay)
        for group in self._optimiser.param_groups:
            group["lr"], group["weight_decay"] = rate, decay if group["decays"] else 0.0

    def _teacher_momentum(self, step: int) -> float:
        return cosine(step, self._settings.steps, self._settings.optimiser.teacher_momentum, 1.0)

    def _add_row(self, values: Mapping[str, Tensor]) -> None:
        names = list(values)
        # One tensor, so that processes and the device are waited for once.
        means = self._ranks.mean(torch.stack([values[name].float() for name in names])).tolist()
        found = dict(zip(names, means, strict=True))
        if not all(math.isfinite(value) for value in means):
            shown = ", ".join(f"{name} {found[name]:.3g}" for name in LOSSES if name in found)
            raise DataError(
                f"{NAME}: a loss or gradient is not finite before step {self._step} ({shown}); the last state is "
                f"kept. Lower {NAME}.optimiser.learning_rate"
            )
        row = {name: round(found[name], DIGITS) for name in COLUMNS if name in found}
        rate = float(self._optimiser.param_groups[0]["lr"])
        self.curve.append({"step": float(self._step)} | row | {"learning_rate": rate})
        if self._log is not None and self._ranks.is_first:
            self._log(self._step, self.curve[-1])

    def _describe(self, bar: object) -> None:
        """Losses beside the time left, where there is a bar."""
        if (show := getattr(bar, "set_postfix_str", None)) is not None:
            row = self.curve[-1]
            shown = (*LOSSES[1:], "teacher_entropy", "rank")
            show(", ".join(f"{name} {row[name]:.3f}" for name in shown if name in row), refresh=False)

    def _save(self) -> None:
        if not self._ranks.is_first:
            return
        save_state(
            self._folder,
            {
                "step": self._step,
                "student": self._network.state_dict(),
                "teacher": self._teacher.state_dict(),
                "centres": [self._centre, self._place_centre],
                "curve": self.curve,
                "optimiser": self._optimiser.state_dict(),
            },
        )

    def _restore(self) -> None:
        if (state := load_state(self._folder)) is None:
            return
        self._step, self.curve = state["step"], state["curve"]
        self._network.load_state_dict(state["student"])
        self._teacher.load_state_dict(state["teacher"])
        self._centre, self._place_centre = (centre.to(self._device) for centre in state["centres"])
        self._optimiser.load_state_dict(state["optimiser"])


def train_features(
    images: TrainingImages,
    settings: DistillationSettings,
    *,
    seed: int,
    device: torch.device,
    cache_dir: Path,
    key: Mapping[str, Any] | None = None,
    ranks: Ranks | None = None,
    log: Log | None = None,
    max_seconds: float = 0.0,
) -> TrainedBackbone:
    """Train a vision transformer without labels; continues an interrupted run of the same settings.

    On the CPU with a fixed number of threads, interrupted and resumed gives the bits of an uninterrupted run.

    Args:
        images: The training set.
        settings: Section ``distillation``.
        seed: The experiment's.
        device: Where to train.
        cache_dir: Where resumable state goes.
        key: What the images depend on, such as fingerprints; another key is another run.
        ranks: This process among those that train together.
        log: Takes step and row.
        max_seconds: Stop after this time with the state saved; 0 never stops.

    Raises:
        DataError: A loss is not finite, or a monitor gives up, with its reason.
        ConfigError: Settings contradict each other or the images, or memory ran out.
    """
    ranks = ranks or Ranks()
    check_settings(settings, images.size, ranks.size)
    whole_key = {
        "settings": dataclasses.asdict(settings),
        "n_images": len(images),
        "size": images.size,
        "seed": seed,
        "inputs": dict(key or {}),
    }
    training = DistillationTraining(
        images,
        settings,
        seed=seed,
        device=device,
        folder=state_folder(cache_dir, whole_key),
        ranks=ranks,
        log=log,
        max_seconds=max_seconds,
    )
    return training.run()


def check_settings(settings: DistillationSettings, size: tuple[int, int], n_processes: int = 1) -> None:
    """Raise on values that cannot work together, or not with frames of ``size`` (H, W).

    Raises:
        ConfigError: With the key's full path.
    """
    patch, views = vit_layout(settings).patch_size, settings.views
    for key, side in (("global_px", views.global_px), ("local_px", views.local_px)):
        if side % patch:
            raise ConfigError(
                f"{NAME}.views.{key} must be a multiple of {NAME}.vit.patch_px ({patch}). Got: {side}"
            )
    if min(size) < patch:
        raise ConfigError(
            f"frames must be at least a patch, {patch} px, high and wide. Got: {size[0]} x {size[1]}"
        )
    if settings.batch_size % n_processes:
        raise ConfigError(
            f"{NAME}.batch_size must be a multiple of the number of processes ({n_processes}). "
            f"Got: {settings.batch_size}"
        )


def _as_tensor(values: npt.NDArray[Any]) -> Tensor:
    """The array itself where it can be written to, otherwise a copy."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))


def _to_device(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    tensor = _as_tensor(values)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
