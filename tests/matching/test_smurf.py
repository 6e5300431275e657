"""The loss of a batch, with networks whose answers are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from gestalt.config.optical_flow import OpticalFlowSettings
from gestalt.config.presets import default_settings
from gestalt.matching.colour_changes import ColourChange, Rectangle
from gestalt.matching.crop_placement import Placement
from gestalt.matching.smurf import (
    Augmentation,
    CropBatch,
    crop_labels,
    make_batch,
    shrink_batch,
    smurf_losses,
    supervised_losses,
    turn_round,
    warp_full_image,
    weigh_sequence,
)

SHIFT = 5


@pytest.fixture(scope="module")
def settings() -> OpticalFlowSettings:
    paper: OpticalFlowSettings = default_settings("optical_flow", "paper")
    return dataclasses.replace(
        paper,
        updates=2,
        crop=dataclasses.replace(paper.crop, height=32, width=48, context_rows_px=8, context_columns_px=32),
        occlusion=dataclasses.replace(paper.occlusion, method="range_map", start_step=0),
        self_supervision=dataclasses.replace(
            paper.self_supervision, start_step=10, ramp_steps=10, margin_px=4
        ),
    )


def pair() -> Tensor:
    """(1, 2, 48, 96, 3) uint8: what the first shows at x, the second shows at x + 5."""
    noise = np.random.default_rng(0).standard_normal((48, 96 + SHIFT, 3))
    smooth = ndimage.gaussian_filter(noise, (1.5, 1.5, 0))
    texture = torch.from_numpy(np.uint8(np.clip(128 + 400 * smooth, 0, 255)))
    return torch.stack([texture[:, SHIFT:], texture[:, :-SHIFT]])[None]


def plain(left: float = 24, top: float = 8) -> Augmentation:
    return Augmentation(Placement((1.0, 1.0), (left, top)), ColourChange(), ColourChange(), ())


def answer(forward: float, seen: list[Any] | None = None) -> Callable[[Tensor, Tensor, int], list[Tensor]]:
    """A network that answers ``forward`` px for the first half of a batch and the reverse for the other."""

    def network(first: Tensor, second: Tensor, updates: int) -> list[Tensor]:
        if seen is not None:
            seen.append((first, second))
        x = torch.full((len(first), 1, *first.shape[2:]), forward)
        x[len(first) // 2 :] *= -1
        return [torch.cat([x, torch.zeros_like(x)], 1) for _ in range(updates)]

    return network


def test_the_true_displacement_has_the_smallest_loss(settings: OpticalFlowSettings) -> None:
    batch = make_batch(pair(), [plain()], settings.crop)
    found = {
        shift: float(smurf_losses(answer(shift), batch, settings, 0)["census"]) for shift in (0, 4, 5, 6, -5)
    }
    assert min(found, key=found.__getitem__) == SHIFT
    assert found[SHIFT] < 1e-5
    assert found[0] > 1


def test_a_zero_displacement_returns_the_target_exactly(settings: OpticalFlowSettings) -> None:
    batch = make_batch(pair(), [plain()], settings.crop)
    warped, inside = warp_full_image(batch, torch.zeros(2, 2, 32, 48))
    assert torch.equal(warped, turn_round(batch.source))
    assert bool(inside.all())


def test_full_image_warping_has_a_signal_where_the_crop_alone_has_none(settings: OpticalFlowSettings) -> None:
    """Every pixel of this crop leaves it, to the right, and the image goes on there."""
    far = 49
    noise = np.random.default_rng(1).integers(0, 256, (40, 300, 3), np.uint8)
    images = torch.from_numpy(np.stack([noise[:, far : far + 200], noise[:, :200]]))[None]
    crop = dataclasses.replace(settings.crop, height=32, width=48, context_rows_px=0, context_columns_px=128)

    def gradient(shift: float, context: int) -> tuple[float, float]:
        own = dataclasses.replace(
            settings,
            crop=dataclasses.replace(crop, context_columns_px=context),
            smoothness=dataclasses.replace(settings.smoothness, weight=0.0),
        )
        batch = make_batch(images, [plain(70, 4)], own.crop)
        optical_flow = torch.zeros(2, 2, 32, 48)
        optical_flow[0, 0], optical_flow[1, 0] = shift, -shift
        optical_flow.requires_grad_()
        loss = smurf_losses(lambda first, second, updates: [optical_flow], batch, own, 0)["census"]
        loss.backward()
        assert optical_flow.grad is not None
        return float(loss.detach()), float(optical_flow.grad[0].abs().sum())

    assert gradient(far - 0.5, 0) == (0, 0)
    loss, slope = gradient(far - 0.5, 128)
    assert loss > 0.1
    assert slope > 0
    assert gradient(float(far), 128)[0] < 1e-5


def test_where_the_image_ends_nothing_is_asked(settings: OpticalFlowSettings) -> None:
    batch = make_batch(pair(), [plain(left=96 - 48)], settings.crop)
    optical_flow = torch.zeros(2, 2, 32, 48)
    optical_flow[:, 0] = 10.0
    _, inside = warp_full_image(batch, optical_flow)
    assert torch.equal(inside[0], (torch.arange(48) + 10 <= 47).expand(32, 48))
    earlier = make_batch(pair(), [plain(left=30)], settings.crop)
    assert bool(warp_full_image(earlier, optical_flow)[1].all())


def test_batches_of_several_pairs_are_the_mean_of_the_pairs(settings: OpticalFlowSettings) -> None:
    places = [plain(10, 3), plain(40, 12), plain(48, 16)]
    one = [
        smurf_losses(answer(4.5), make_batch(pair(), [place], settings.crop), settings, 0) for place in places
    ]
    together = smurf_losses(
        answer(4.5), make_batch(pair().repeat(3, 1, 1, 1, 1), places, settings.crop), settings, 0
    )
    for name in ("census", "smoothness"):
        assert torch.allclose(together[name], torch.stack([losses[name] for losses in one]).mean(), rtol=1e-5)


def test_a_smaller_batch_lies_where_the_large_one_does(settings: OpticalFlowSettings) -> None:
    """Also where the margin of the context is no multiple of the factor."""
    crop = dataclasses.replace(settings.crop, context_rows_px=12, context_columns_px=28)
    batch = make_batch(pair(), [plain()], crop)
    assert batch.margin == (6, 14)
    small = shrink_batch(batch, 4)
    assert small.margin == (1, 3)
    assert small.source.shape == (2, 3, 8, 12)
    assert small.context.shape == (2, 3, 8 + 2, 12 + 6)
    warped, inside = warp_full_image(small, torch.zeros(2, 2, 8, 12))
    assert torch.allclose(warped, turn_round(small.source), atol=1e-6)
    assert bool(inside.all())
    # The stored image goes on for 6 rows above the crop that are in the context: their centres are -6 to -1.
    assert small.bounds[0].tolist() == pytest.approx(
        [(value - 1.5) / 4 for value in batch.bounds[0].tolist()]
    )
    assert shrink_batch(batch, 1) is batch


def test_small_images_know_the_way_from_where_large_ones_do_not(settings: OpticalFlowSettings) -> None:
    noise = np.random.default_rng(2).standard_normal((160, 200, 3))
    texture = sum(blur * ndimage.gaussian_filter(noise, (blur, blur, 0)) for blur in (1.5, 3, 6, 12))
    pixels = np.uint8(np.clip(128 + 45 * texture / np.std(texture), 0, 255))
    far = 12
    images = torch.from_numpy(np.stack([pixels[:, far:], pixels[:, :-far]]))[None]
    crop = dataclasses.replace(settings.crop, height=96, width=128, context_rows_px=32, context_columns_px=48)
    batch = make_batch(images, [plain(30, 32)], crop)

    def slope(levels: int, guess: float) -> float:
        """Change of the loss per pixel that the forward displacement grows by, at a guess for both directions."""
        start = dataclasses.replace(settings.coarse_start, levels=levels, steps_per_level=1)
        own = dataclasses.replace(settings, crop=crop, coarse_start=start)
        x = torch.tensor(float(guess), requires_grad=True)

        def network(first: Tensor, second: Tensor, updates: int) -> list[Tensor]:
            field = x * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 1, 96, 128)
            return [torch.cat([field, torch.zeros_like(field)], 1)]

        smurf_losses(network, batch, own, 0)["census"].backward()
        assert x.grad is not None
        return float(x.grad)

    assert slope(2, far + 1) > 0 > slope(2, far - 1)
    near, away = slope(2, far - 4), slope(2, far - 10)
    assert near < away < -0.005
    # Full images hardly know it there: the slope is a quarter of that of small ones.
    assert abs(slope(0, far - 10)) < -0.5 * away


def test_the_pull_towards_rest_ends_with_the_small_images(settings: OpticalFlowSettings) -> None:
    start = dataclasses.replace(settings.coarse_start, levels=1, steps_per_level=5, rest_weight=0.1)
    own = dataclasses.replace(settings, coarse_start=start)
    batch = make_batch(pair(), [plain()], own.crop)
    # Two updates, the first of which counts 0.8, both of 5 px.
    assert float(smurf_losses(answer(5), batch, own, 4)["rest"]) == pytest.approx(0.1 * 1.8 * 5, rel=0.01)
    assert float(smurf_losses(answer(5), batch, own, 5)["rest"]) == 0


def test_how_many_updates_are_judged_together_changes_nothing(settings: OpticalFlowSettings) -> None:
    fields = [torch.randn(2, 2, 32, 48, generator=torch.Generator().manual_seed(n)) * 3 for n in range(5)]
    batch = make_batch(pair(), [plain()], settings.crop)
    found = []
    for at_once in (1, 2, 5, 8):
        own = [field.clone().requires_grad_() for field in fields]
        losses = smurf_losses(
            lambda first, second, updates, own=own: own,  # type: ignore[misc]
            batch,
            dataclasses.replace(settings, updates_at_once=at_once),
            0,
        )
        sum(losses.values()).backward()
        found.append(
            (losses["census"].detach(), losses["smoothness"].detach(), *(field.grad for field in own))
        )
    for other in found[1:]:
        assert all(
            torch.allclose(one, two, rtol=1e-4, atol=1e-7) for one, two in zip(found[0], other, strict=True)
        )


def test_the_network_sees_changed_colours_and_the_losses_do_not(settings: OpticalFlowSettings) -> None:
    changed = Augmentation(
        plain().placement, ColourChange(brightness=0.1), ColourChange(hue=0.1), (Rectangle(2, 9, 3, 20),)
    )
    batch, same = make_batch(pair(), [changed], settings.crop), make_batch(pair(), [plain()], settings.crop)
    assert torch.equal(batch.source, same.source)
    assert torch.equal(batch.context, same.context)
    assert not torch.equal(batch.seen_source, same.seen_source)
    assert torch.equal(batch.seen_target, turn_round(batch.seen_source))
    erased = batch.seen_source[1, :, 2:9, 3:20]
    assert float(erased.flatten(1).std(1).max()) < 1e-6
    seen: list[Any] = []
    losses = smurf_losses(answer(SHIFT, seen), batch, settings, 0)
    assert torch.equal(seen[0][0], batch.seen_source)
    assert float(losses["census"]) < 1e-5


class OneWeight(nn.Module):
    """Answers its weight as displacement in x, and remembers whether gradients were wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.passes: list[tuple[bool, Tensor]] = []

    def forward(self, first: Tensor, second: Tensor, updates: int) -> list[Tensor]:
        self.passes.append((torch.is_grad_enabled(), first))
        field = self.weight * first.new_ones(len(first), 2, *first.shape[2:])
        return [field for _ in range(updates)]


def test_self_supervision_starts_late_with_a_teacher_without_gradient(settings: OpticalFlowSettings) -> None:
    changed = Augmentation(plain().placement, ColourChange(brightness=0.1), ColourChange(brightness=0.1), ())
    batch = make_batch(pair(), [changed], settings.crop)
    network = OneWeight()
    assert float(smurf_losses(network, batch, settings, 10)["self_supervision"]) == 0
    assert len(network.passes) == 1
    network.passes.clear()
    smurf_losses(network, batch, settings, 20)
    assert [wants for wants, _ in network.passes] == [True, False, True]
    main, teacher, student = (images for _, images in network.passes)
    assert torch.equal(main, batch.seen_source)
    assert torch.equal(teacher, batch.source)  # its own colours, the whole crop
    assert student.shape == main.shape  # the middle, resized
    assert not torch.equal(student, main)


def test_the_student_alone_learns_from_its_teacher(settings: OpticalFlowSettings) -> None:
    """Forward and backward answers agree for the teacher and not for the student, who is half a pixel off."""
    own = dataclasses.replace(
        settings,
        census=dataclasses.replace(settings.census, weight=0.0),
        smoothness=dataclasses.replace(settings.smoothness, weight=0.0),
    )
    batch = make_batch(pair(), [plain()], own.crop)
    teacher_field = torch.zeros(2, 2, 32, 48, requires_grad=True)
    student_field = torch.full((2, 2, 32, 48), 4.0, requires_grad=True)

    def network(first: Tensor, second: Tensor, updates: int) -> list[Tensor]:
        is_student = torch.is_grad_enabled() and first is not batch.seen_source
        return [student_field if is_student else teacher_field] * updates

    loss = smurf_losses(network, batch, own, 20)["self_supervision"]
    loss.backward()
    assert student_field.grad is not None
    assert float(student_field.grad.sum()) > 0  # downhill is towards the teacher's 0
    assert teacher_field.grad is None or float(teacher_field.grad.abs().sum()) == 0
    assert 0 < float(loss.detach()) <= 0.3 * (1 + 0.8) * 4


def test_updates_count_more_the_later_they_are() -> None:
    losses = torch.tensor([1.0, 10.0, 100.0])
    assert float(weigh_sequence(losses, 0.8)) == pytest.approx(0.64 + 8 + 100)


def test_the_second_phase_compares_with_known_labels_of_the_crop(settings: OpticalFlowSettings) -> None:
    crop = dataclasses.replace(settings.crop, context_rows_px=0, context_columns_px=0)
    double = Augmentation(Placement((0.5, 0.5), (20.0, 10.0)), ColourChange(), ColourChange(), ())
    batch: CropBatch = make_batch(pair(), [double], crop)
    labels = torch.zeros(1, 2, 48, 96)
    labels[:, 0] = SHIFT
    known = torch.ones(1, 48, 96, dtype=torch.bool)
    cropped, seen = crop_labels(labels, known, [double], crop)
    assert torch.allclose(cropped[0, 0], torch.tensor(2.0 * SHIFT))

    def constant(shift: float) -> Callable[[Tensor, Tensor, int], list[Tensor]]:
        field = torch.tensor([shift, 0.0]).view(1, 2, 1, 1).expand(1, 2, 32, 48)
        return lambda first, second, updates: [field] * updates

    exact = supervised_losses(constant(2 * SHIFT), batch, cropped, seen, settings)
    assert float(exact["supervised"]) == 0
    off = supervised_losses(constant(2 * SHIFT + 1), batch, cropped, seen, settings)
    assert float(off["supervised"]) == pytest.approx(0.5 * 1.8)  # one of two components is one pixel off
    far = supervised_losses(constant(0), batch, cropped + 1000, seen, settings)
    assert float(far["supervised"]) == 0
