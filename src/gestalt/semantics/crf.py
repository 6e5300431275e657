"""Fully connected CRF by mean field: probabilities that follow the edges of the image.

Every pixel tells every other one to take its label, near ones (Gaussian kernel) and those of one colour in a wide
surrounding (bilateral kernel). Images and log-probabilities come in, probabilities go out.

Source: Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NeurIPS
2011, with the symmetric normalisation D^-1/2 K D^-1/2 of the kernels of their later work (ICML 2013), which the widely
used Python package has as its default. As there, a pixel's message to itself is not taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.config.crf import CrfSettings
from gestalt.errors import DataError, ShapeError
from gestalt.semantics.permutohedral import Lattice, build_lattice
from gestalt.semantics.row_sums import PartThreads, RowSums, empty

# Pixels that go together on a GPU: 27 labels take about 3 GB. A CPU takes image by image.
PIXELS_AT_ONCE = 1 << 22


@torch.no_grad()
def refine(images: Tensor, log_prob: Tensor, settings: CrfSettings) -> Tensor:
    """Mean-field probabilities of the fully connected CRF with a Potts model.

    The result does not depend on the number of threads, nor on the other images of the batch.

    Args:
        images: (B, H, W, 3) uint8, RGB or any fixed order of three channels, on the device of ``log_prob``.
        log_prob: (B, K, H, W) float, logarithms of probabilities; a constant per pixel changes nothing, and -inf
            forbids a label. Computed in float32.
        settings: Kernels and iterations.

    Returns:
        (B, K, H, W) float32 on the same device, sums to one in each pixel; in memory the labels of a pixel lie side
        by side. With no iteration, or with both weights 0, the probabilities that came in.

    Raises:
        ShapeError: Sizes or types differ from what is stated.
        DataError: A log-probability is NaN or +inf, or a pixel forbids every label.
        ConfigError: A standard deviation is so small that the lattice has too many corners.
    """
    _check(images, log_prob)
    n_images, n_labels, height, width = log_prob.shape
    gaussian, bilateral = settings.gaussian_weight, settings.bilateral_weight
    if not settings.iterations or not (gaussian or bilateral):
        return torch.softmax(log_prob.float(), dim=1)
    # Pixels as rows: what a corner needs of a pixel lies side by side.
    prob = empty((n_images, height * width, n_labels), torch.float32, log_prob.device)
    together = 1 if log_prob.device.type == "cpu" else max(PIXELS_AT_ONCE // (height * width), 1)
    plane: Lattice | None = None
    for first in range(0, n_images, together):
        some = slice(first, min(first + together, n_images))
        n_some = some.stop - some.start
        kernels: list[tuple[Lattice, float]] = []
        if gaussian:
            # Positions are those of any image of the size.
            if plane is None or n_some < together:
                points = position_points(height, width, settings.gaussian_sigma_px, log_prob.device)
                plane = build_lattice(points.expand(n_some, -1, -1))
            kernels.append((plane, gaussian))
        if bilateral:
            kernels.append((build_lattice(bilateral_points(images[some], settings)), bilateral))
        messages = Messages.between_pixels(kernels)
        kernels.clear()
        if some.stop == n_images:
            plane = None
        infer(log_prob[some], messages, settings.iterations, prob[some].flatten(0, 1))
    return prob.view(n_images, height, width, n_labels).permute(0, 3, 1, 2)


def infer(log_prob: Tensor, messages: Messages, iterations: int, prob: Tensor) -> None:
    """Mean field with given messages.

    Args:
        log_prob: (B, K, H, W) float, as in ``refine``.
        messages: Between the B * H * W pixels, in this order.
        iterations: Parallel updates.
        prob: (B * H * W, K) float32; receives the probabilities.
    """
    n_labels = log_prob.shape[1]
    unary = empty(
        (log_prob.shape[0], prob.shape[0] // log_prob.shape[0], n_labels), torch.float32, prob.device
    )
    unary = unary.copy_(log_prob.flatten(2).transpose(1, 2)).flatten(0, 1)
    torch.softmax(unary, dim=1, out=prob)
    tables = messages.empty_tables(n_labels)

    def update(some: slice, energy: Tensor) -> None:
        energy += unary[some]
        # All of ``prob`` has been read before the first message comes out.
        torch.softmax(energy, dim=1, out=prob[some])

    n_threads = torch.get_num_threads() if prob.device.type == "cpu" else 1
    with PartThreads(n_threads) as threads:
        for _ in range(iterations):
            messages.send(prob, tables, update, threads)


@dataclass(frozen=True, eq=False)
class Messages:
    """The sum over kernels of weight * D^-1/2 K D^-1/2, on one table that has the corners of all lattices.

    Attributes:
        n_rows: Of the table; the last row is zero.
        splats: For each lattice, its first row and what fills its corners.
        blurs: For each lattice, passes from one table to another.
        slices: Pixels from the corners of all lattices at once.
    """

    n_rows: int
    splats: tuple[tuple[int, RowSums], ...]
    blurs: tuple[tuple[RowSums, ...], ...]
    slices: RowSums

    @classmethod
    def between_pixels(cls, kernels: Sequence[tuple[Lattice, float]]) -> Messages:
        """Fold normalisation and weights into what pixels give and take."""
        n_rows = sum(lattice.n_corners for lattice, _ in kernels) + 1
        splats, blurs, rows, weights = [], [], [], []
        first_row = 0
        for lattice, weight in kernels:
            ones = lattice.weights.new_ones(lattice.weights.shape[0], 1)
            # Never zero: a pixel gives to itself.
            norm = lattice.filter(ones)[:, 0].rsqrt_()
            normalised = lattice.weights * norm[:, None]
            splats.append((first_row, lattice.splat(normalised)))
            blurs.append(tuple(lattice.blurs(first_row, n_rows)))
            rows.append(lattice.corners + first_row)
            weights.append(normalised * weight)
            first_row += lattice.n_corners
        slices = RowSums.of_equal_size(torch.cat(rows, 1), torch.cat(weights, 1))
        return cls(n_rows, tuple(splats), tuple(blurs), slices)

    def empty_tables(self, n_labels: int) -> tuple[Tensor, Tensor]:
        """Two tables to blur from one into the other."""
        tables = empty((2, self.n_rows, n_labels), torch.float32, self.slices.rows.device)
        # Rows of corners are written before they are read.
        tables[:, -1] = 0
        return tables[0], tables[1]

    def send(
        self,
        prob: Tensor,
        tables: tuple[Tensor, Tensor],
        receive: Callable[[slice, Tensor], None],
        threads: PartThreads,
    ) -> None:
        """Tell each pixel what all pixels tell it.

        Args:
            prob: (P, K) float32, probabilities; may be overwritten once the first part has come.
            tables: From ``empty_tables``, for the same labels.
            receive: Gets a slice of the pixels and the (n, K) messages to them, in fresh memory.
            threads: Share the work.
        """
        for (first_row, splat), passes in zip(self.splats, self.blurs):
            # Numbers of passes differ; all lattices end in the first table.
            source = len(passes) % 2
            n_corners = splat.starts.numel() - 1
            corners = slice(first_row, first_row + n_corners)
            splat.write(prob, tables[source][corners], threads)
            for blur in passes:
                blur.write(tables[source], tables[1 - source][corners], threads)
                source = 1 - source
        self.slices.apply(tables[0], receive, threads)


def position_points(height: int, width: int, sigma_px: float, device: torch.device) -> Tensor:
    """(1, 2, H * W) float32: x and y of pixels in standard deviations."""
    rows = torch.arange(height, dtype=torch.float32, device=device) / sigma_px
    columns = torch.arange(width, dtype=torch.float32, device=device) / sigma_px
    grid = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)])
    return grid.reshape(1, 2, -1)


def bilateral_points(images: Tensor, settings: CrfSettings) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 5, H * W) float32: x, y and three colours in standard deviations."""
    n_images, height, width, _ = images.shape
    positions = position_points(height, width, settings.bilateral_sigma_px, images.device)
    colours = images.reshape(n_images, -1, 3).transpose(1, 2) / settings.bilateral_sigma_rgb
    return torch.cat([positions.expand(n_images, -1, -1), colours], dim=1)


def _check(images: Tensor, log_prob: Tensor) -> None:
    if log_prob.ndim != 4 or not log_prob.is_floating_point() or 0 in log_prob.shape[1:]:
        raise ShapeError(
            "log_prob must be (B, K, H, W) float with at least one label and one pixel. "
            f"Got: {tuple(log_prob.shape)} {log_prob.dtype}"
        )
    n_images, _, height, width = log_prob.shape
    if images.shape != (n_images, height, width, 3) or images.dtype != torch.uint8:
        raise ShapeError(
            f"images must be {(n_images, height, width, 3)} uint8, the size of log_prob. "
            f"Got: {tuple(images.shape)} {images.dtype}"
        )
    if images.device != log_prob.device:
        raise ShapeError(
            f"images and log_prob must lie on one device. Got: {images.device} and {log_prob.device}"
        )
    for index, one in enumerate(log_prob):
        highest = one.amax(dim=0)
        if not bool(torch.isfinite(highest).all()):
            row, column = torch.nonzero(~torch.isfinite(highest))[0].tolist()
            raise DataError(
                "each pixel needs a finite log-probability for some label, and none that is NaN or +inf. "
                f"Got: {one[:, row, column].tolist()[:8]} in image {index}, row {row}, column {column}"
            )
