"""The objective as a whole: its weights, its parts of depth, and every published slip on and off."""

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn import functional

from gestalt.config.codes import CodeSettings
from gestalt.config.presets import default_settings
from gestalt.semantics.code_objective import Batch, CodeObjective, depth_targets, measured_shifts
from gestalt.semantics.correspondence import draw_derangements

STEGO: CodeSettings = default_settings("codes", "stego")
SETTINGS = dataclasses.replace(STEGO, correspondence=dataclasses.replace(STEGO.correspondence, positions=11))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def settings(**values: Any) -> CodeSettings:
    """Fields of the section; those of its own sections as ``depth__weight``."""
    changed = SETTINGS
    for name, value in values.items():
        *above, field = name.split("__")
        if above:
            value = dataclasses.replace(getattr(changed, above[0]), **{field: value})
        changed = dataclasses.replace(changed, **{above[0] if above else field: value})
    return changed


def batch(anchors: int = 3, channels: int = 5, h: int = 9, w: int = 12) -> Batch:
    nearness = torch.rand(2 * anchors, h, w, generator=generator(1)) * 0.2 + 0.01
    return Batch(
        torch.randn(2 * anchors, channels, h, w, generator=generator()),
        nearness,
        torch.full((2 * anchors,), 20.0),
        torch.tensor([[5.5, 4.0]]).expand(2 * anchors, 2),
        draw_derangements(anchors, 2, generator(2)),
    )


def codes(seed: int = 3) -> torch.Tensor:
    return torch.randn(6, 4, 9, 12, generator=generator(seed))


def test_the_total_is_the_weighted_sum() -> None:
    own = settings(
        correspondence__self_weight=2.0,
        correspondence__neighbour_weight=3.0,
        correspondence__random_weight=5.0,
        depth__weight=7.0,
        depth__decay=0.5,
        depth__decay_every=10,
    )
    for step, factor in ((0, 7.0), (10, 3.5)):
        judged = CodeObjective(own, 0).judge(batch(), codes(), step, generator())
        terms = judged.losses
        expected = 2 * terms["self"] + 3 * terms["neighbour"] + 5 * terms["random"] + factor * terms["depth"]
        torch.testing.assert_close(judged.total, expected)


def test_kinds_are_a_crop_with_itself_its_neighbour_and_strangers() -> None:
    own = settings(correspondence__centring=False)
    data = batch()
    # Neighbours equal their anchors, so only positions tell these kinds apart; strangers differ.
    twins = dataclasses.replace(data, features=data.features[:3].repeat(2, 1, 1, 1))
    found = CodeObjective(own, 0).judge(twins, codes(), 0, generator()).targets
    assert found.shape == (4, 3, 121, 121)
    torch.testing.assert_close(found[0].diagonal(dim1=1, dim2=2), torch.ones(3, 121))
    torch.testing.assert_close(found[0], found[0].mT)
    assert not torch.allclose(found[1], found[1].mT)
    assert float(found[1].mean()) == pytest.approx(float(found[0].mean()), abs=0.05)


def test_geometry_takes_part_only_when_asked() -> None:
    data = batch()
    plain = dataclasses.replace(data, features=data.features[:, :3])
    targets = {}
    for asked in (False, True):
        objective = CodeObjective(settings(correspondence__geometry=asked), 2)
        targets[asked] = objective.targets(data, objective.draw_positions(data, 0, generator()))
    alone = CodeObjective(settings(), 0)
    reference = alone.targets(plain, alone.draw_positions(plain, 0, generator()))
    torch.testing.assert_close(targets[False], reference)
    assert not torch.allclose(targets[True], reference)


def test_without_weight_depth_is_not_looked_at() -> None:
    data = batch()
    blind = dataclasses.replace(data, nearness=torch.full_like(data.nearness, torch.nan))
    judged = CodeObjective(settings(depth__weight=0.0), 0).judge(blind, codes(), 0, generator())
    assert "depth" not in judged.losses
    assert torch.isfinite(judged.total)


def test_maps_without_depth_add_nothing() -> None:
    data = batch()
    blind = dataclasses.replace(data, nearness=torch.zeros_like(data.nearness))
    for sampling in ("random", "farthest"):
        own = settings(depth__weight=1.0, depth__sampling=sampling, correspondence__positions=8)
        judged = CodeObjective(own, 0).judge(blind, codes(), 0, generator())
        assert float(judged.losses["depth"]) == 0
        assert torch.isfinite(judged.total)


def test_depth_targets_belong_to_the_positions_of_the_codes() -> None:
    nearness = torch.exp(-torch.arange(12.0))[None, None].expand(1, 9, 12).contiguous()
    objective = CodeObjective(settings(depth__weight=1.0), 0)
    data = dataclasses.replace(batch(2), nearness=nearness.repeat(4, 1, 1))
    positions = objective.draw_positions(data, 0, generator())[:1]
    targets, known = depth_targets(
        nearness, positions, settings(depth__scale="log", depth__target="difference").depth
    )
    columns = positions[0, :, 0]
    assert known.all()
    torch.testing.assert_close(
        targets[0], 1 - (columns[:, None] - columns[None]).abs() / 2, atol=1e-4, rtol=0
    )


def test_farthest_positions_are_fewer_with_time() -> None:
    own = settings(
        depth__sampling="farthest",
        depth__positions_decay=0.9,
        depth__positions_decay_every=10,
        correspondence__positions=9,
    )
    objective = CodeObjective(own, 0)
    counts = [objective.draw_positions(batch(), step, generator()).shape for step in (0, 10)]
    assert counts == [(9, 81, 2), (9, 64, 2)]


def test_published_slips_change_positions_targets_and_schedule() -> None:
    changes = {
        "depth__sampling": "farthest",
        "depth__weight": 1.0,
        "depth__positions_decay": 0.9,
        "correspondence__positions": 8,
    }
    ours, theirs = (settings(**changes, depth__as_published=flag) for flag in (False, True))
    data = batch()
    here, there = (CodeObjective(own, 0).draw_positions(data, 0, generator()) for own in (ours, theirs))
    assert (here.shape[1], there.shape[1]) == (64, 49)
    assert bool(torch.isin(((here[0, :, 0] + 1) * 11 / 2).round(decimals=3), torch.arange(12.0)).all())
    # Rows, of which there are 9, stand where columns belong.
    assert bool(torch.isin(((there[0, :, 0] + 1) * 9 / 2).round(decimals=3), torch.arange(9.0)).all())
    positions = here[:3, :49]
    intended, _ = depth_targets(data.nearness[:3], positions, ours.depth)
    published, _ = depth_targets(data.nearness[:3], positions, theirs.depth)
    assert set(published.unique().tolist()) <= {0.0, 1.0}
    assert len(intended.unique()) > 100


def test_measured_shifts_follow_the_shares() -> None:
    own = settings(
        correspondence__self_share=0.5, correspondence__neighbour_share=0.1, correspondence__random_share=0.9
    )
    objective, data = CodeObjective(own, 0), batch()
    targets = [
        objective.targets(data, objective.draw_positions(data, 0, generator(seed))) for seed in range(4)
    ]
    shifts = measured_shifts(targets, own)
    for kind, share in enumerate((0.5, 0.1, 0.9)):
        values = torch.cat([target[kind].flatten() for target in targets])
        assert float((values < shifts[kind]).float().mean()) == pytest.approx(share, abs=1e-3)


def train_pixels(own: CodeSettings, data: Batch, steps: int = 200) -> torch.Tensor:
    """Codes (2B, 4, h, w) of free cells after some steps, of unit length; no two are opposite at the start."""
    free = torch.rand(
        len(data.features), 4, *data.features.shape[2:], generator=generator(7)
    ).requires_grad_()
    objective, optimiser = CodeObjective(own, 0), torch.optim.Adam([free], 0.05)
    for step in range(steps):
        optimiser.zero_grad()
        objective.judge(data, free, step, generator(step)).total.backward()
        optimiser.step()
    return functional.normalize(free.detach(), dim=1)


def test_the_depth_term_separates_regions_that_features_cannot_tell_apart() -> None:
    same = torch.ones(4, 3, 8, 8)
    nearness = torch.full((4, 8, 8), 1 / 4)
    nearness[:, :, 4:] = 1 / 40
    data = Batch(
        same, nearness, torch.full((4,), 8.0), torch.full((4, 2), 3.5), draw_derangements(2, 2, generator())
    )
    own = settings(
        correspondence__self_weight=0.0,
        correspondence__neighbour_weight=0.0,
        correspondence__random_weight=0.0,
        depth__weight=1.0,
        depth__shift=0.5,
        depth__decay=1.0,
        depth__scale="log",
        depth__target="difference",
        correspondence__positions=6,
    )
    left, right = train_pixels(own, data)[0].split(4, 2)
    left, right = left.flatten(1).mean(1), right.flatten(1).mean(1)
    assert float(left.norm()) > 0.9
    assert float(right.norm()) > 0.9
    assert float(left @ right) < 0.1
    # The published term pulls everything together, whatever the depth.
    left, right = train_pixels(
        dataclasses.replace(own, depth=dataclasses.replace(own.depth, as_published=True)),
        dataclasses.replace(
            data, nearness=nearness.clamp(max=0.24) + 0.01 * torch.rand(4, 8, 8, generator=generator())
        ),
    )[0].split(4, 2)
    assert float(left.flatten(1).mean(1) @ right.flatten(1).mean(1)) > 0.5
