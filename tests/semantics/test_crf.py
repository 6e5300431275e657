"""Mean field against exact kernels, and identities that hold for any image."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gestalt.config.crf import CrfSettings
from gestalt.errors import DataError, ShapeError
from gestalt.runtime import torch_generator
from gestalt.semantics import crf
from gestalt.semantics.crf import bilateral_points, position_points, refine

CUPS = CrfSettings(
    iterations=10,
    gaussian_weight=3.0,
    gaussian_sigma_px=1.0,
    bilateral_weight=4.0,
    bilateral_sigma_px=67.0,
    bilateral_sigma_rgb=3.0,
)
WIDE = replace(CUPS, bilateral_sigma_px=6.0, bilateral_sigma_rgb=40.0)


def scene(height: int = 20, width: int = 26, n_labels: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy colour regions and log-probabilities that know them, with errors."""
    generator = torch_generator(seed, "scene")
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    labels = ((rows > height / 2).long() * 2 + (columns > width / 3).long()) % n_labels
    colours = torch.randint(30, 226, (n_labels, 3), generator=generator)
    noise = torch.randint(-8, 9, (height, width, 3), generator=generator)
    image = (colours[labels] + noise).clamp(0, 255).to(torch.uint8)
    logits = torch.nn.functional.one_hot(labels, n_labels).permute(2, 0, 1) * 1.0
    logits = logits + torch.randn(logits.shape, generator=generator)
    return image[None], torch.log_softmax(logits, 0)[None]


def exact_mean_field(image: Tensor, log_prob: Tensor, options: CrfSettings) -> Tensor:
    """All pairs in double precision, written down from the definition."""
    _, n_labels, height, width = log_prob.shape
    unary = log_prob[0].reshape(n_labels, -1).double().T
    message = torch.zeros(height * width, height * width, dtype=torch.float64)
    for points, weight in (
        (position_points(height, width, options.gaussian_sigma_px, unary.device), options.gaussian_weight),
        (bilateral_points(image, options), options.bilateral_weight),
    ):
        kernel = (-torch.cdist(points[0].T.double(), points[0].T.double()).square() / 2).exp()
        scale = kernel.sum(1).rsqrt()
        message += weight * scale[:, None] * kernel * scale
    prob = unary.softmax(1)
    for _ in range(options.iterations):
        prob = (unary + message @ prob).softmax(1)
    return prob.T.reshape(1, n_labels, height, width)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_labels_are_those_of_the_exact_mean_field(seed: int) -> None:
    image, log_prob = scene(seed=seed)
    found, wanted = refine(image, log_prob, WIDE), exact_mean_field(image, log_prob, WIDE)
    # The lattice only comes near a Gaussian. Measured: 1, 1 and 0.998 of the pixels; 0.0002, 0.0007 and 0.0016.
    assert float((found.argmax(1) == wanted.argmax(1)).double().mean()) > 0.995
    assert float((found - wanted).abs().mean()) < 0.003


def test_the_gaussian_kernel_alone_is_close_to_the_exact_one() -> None:
    image, log_prob = scene()
    options = replace(CUPS, bilateral_weight=0.0)
    found, wanted = refine(image, log_prob, options), exact_mean_field(image, log_prob, options)
    # Measured: 0.0027 and 0.996.
    assert float((found - wanted).abs().mean()) < 0.005
    assert float((found.argmax(1) == wanted.argmax(1)).double().mean()) > 0.99


def test_wrong_pixels_inside_a_region_take_its_label() -> None:
    image, log_prob = scene(40, 40)
    truth = ((torch.arange(40)[:, None] > 20).long() * 2 + (torch.arange(40) > 40 / 3).long())[None]
    before = float((log_prob.argmax(1) == truth).double().mean())
    after = float((refine(image, log_prob, WIDE).argmax(1) == truth).double().mean())
    assert before < 0.75
    assert after > 0.97


@pytest.mark.parametrize(
    "off",
    [{"iterations": 0}, {"gaussian_weight": 0.0, "bilateral_weight": 0.0}],
    ids=["iterations", "weights"],
)
def test_without_messages_the_probabilities_come_back_exactly(off: dict[str, float]) -> None:
    image, log_prob = scene()
    assert torch.equal(refine(image, log_prob, replace(CUPS, **off)), log_prob.softmax(1))


def test_a_message_of_hand_computed_size_arrives() -> None:
    # Two pixels of one simplex each in the bilateral kernel: one colour, positions equal in the limit.
    image = torch.full((1, 1, 2, 3), 90, dtype=torch.uint8)
    log_prob = torch.tensor([[0.8, 0.3], [0.2, 0.7]]).log().view(1, 2, 1, 2)
    options = replace(CUPS, gaussian_weight=0.0, bilateral_weight=2.0, bilateral_sigma_px=1e6, iterations=1)
    # All weights are equal, so D^-1/2 K D^-1/2 is 1/2 everywhere: each pixel gets weight times the mean of both.
    message = 2.0 * torch.tensor([0.55, 0.45])
    wanted = (log_prob[0, :, 0].T + message).softmax(1).T
    assert torch.allclose(refine(image, log_prob, options)[0, :, 0], wanted, atol=1e-5)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_probabilities_sum_to_one(height: int, width: int, n_labels: int, seed: int) -> None:
    prob = refine(*scene(height, width, n_labels, seed), CUPS)
    assert prob.shape == (1, n_labels, height, width)
    assert torch.allclose(prob.sum(1), torch.ones(1, height, width), atol=1e-5)
    assert float(prob.min()) >= 0


def test_one_label_is_certain_and_one_pixel_keeps_its_order() -> None:
    image, log_prob = scene(5, 6, 1)
    assert torch.equal(refine(image, log_prob, CUPS), torch.ones(1, 1, 5, 6))
    image, log_prob = scene(1, 1)
    prob = refine(image, log_prob, CUPS)
    assert torch.equal(prob.argsort(1), log_prob.argsort(1))
    assert float(prob.max()) > float(log_prob.exp().max())


def test_in_a_constant_image_with_constant_probabilities_nothing_stands_out() -> None:
    log_prob = torch.tensor([0.5, 0.3, 0.2]).log().view(1, 3, 1, 1).expand(1, 3, 9, 11)
    prob = refine(torch.full((1, 9, 11, 3), 128, dtype=torch.uint8), log_prob, CUPS)
    assert bool((prob.argmax(1) == 0).all())
    assert bool((prob[:, 1] > prob[:, 2]).all())


def test_permuting_labels_permutes_the_result() -> None:
    image, log_prob = scene()
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(
        refine(image, log_prob[:, order], CUPS), refine(image, log_prob, CUPS)[:, order], atol=1e-5
    )


def test_a_batch_gives_what_its_images_give(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [scene(seed=seed) for seed in range(3)]
    images, log_prob = (torch.cat(parts) for parts in zip(*scenes))
    apart = torch.cat([refine(image, one, CUPS) for image, one in scenes])
    assert torch.equal(refine(images, log_prob, CUPS), apart)
    # As on a GPU: the lattices of a batch joined.
    kernels = [
        (crf.build_lattice(position_points(20, 26, 1.0, images.device).expand(3, -1, -1)), 3.0),
        (crf.build_lattice(bilateral_points(images, CUPS)), 4.0),
    ]
    joined = torch.empty(3 * 20 * 26, 4)
    crf.infer(log_prob, crf.Messages.between_pixels(kernels), 10, joined)
    assert torch.allclose(joined.view(3, 20, 26, 4).permute(0, 3, 1, 2), apart, atol=1e-6)


def test_the_number_of_threads_changes_no_bit() -> None:
    image, log_prob = scene(60, 200, 27)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(refine(image, log_prob, CUPS))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_a_forbidden_label_stays_forbidden() -> None:
    image, log_prob = scene()
    log_prob[:, 1] = -torch.inf
    prob = refine(image, log_prob, CUPS)
    assert float(prob[:, 1].max()) == 0
    assert bool(torch.isfinite(prob).all())


def test_bad_input_is_refused_with_its_place() -> None:
    image, log_prob = scene()
    with pytest.raises(ShapeError, match="uint8"):
        refine(image.float(), log_prob, CUPS)
    with pytest.raises(ShapeError, match="size of log_prob"):
        refine(image[:, 1:], log_prob, CUPS)
    with pytest.raises(ShapeError, match="at least one label"):
        refine(image, log_prob[:, :0], CUPS)
    for wrong in (torch.nan, torch.inf):
        spoilt = log_prob.clone()
        spoilt[0, 2, 3, 4] = wrong
        with pytest.raises(DataError, match="image 0, row 3, column 4"):
            refine(image, spoilt, CUPS)
    spoilt = log_prob.clone()
    spoilt[0, :, 0, 1] = -torch.inf
    with pytest.raises(DataError, match="row 0, column 1"):
        refine(image, spoilt, CUPS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    scenes = [scene(60, 90, 7, seed) for seed in range(3)]
    images, log_prob = (torch.cat(parts) for parts in zip(*scenes))
    device = torch.device("cuda")
    found = refine(images.to(device), log_prob.to(device), CUPS).cpu()
    wanted = refine(images, log_prob, CUPS)
    assert float((found.argmax(1) == wanted.argmax(1)).double().mean()) > 0.999
    assert torch.allclose(found, wanted, atol=1e-3)
