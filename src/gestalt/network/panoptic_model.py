"""What every panoptic network offers, whichever library its parts come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from gestalt.errors import ShapeError
from gestalt.network.drop_loss import DropRule
from gestalt.network.records import Detections, ImageTarget

# Statistics of ImageNet's colours, the normalisation of most published backbones.
COLOUR_MEAN = (0.485, 0.456, 0.406)
COLOUR_STD = (0.229, 0.224, 0.225)


class PanopticModel(nn.Module, ABC):
    """Images to losses, or to features, boxes and semantics.

    Boxes are x0, y0, x1, y1 in pixels of the images that went in, x1 and y1 outside.
    """

    @property
    @abstractmethod
    def n_things(self) -> int:
        """T, the number of thing classes."""

    @property
    @abstractmethod
    def n_stuff(self) -> int:
        """S, the number of stuff classes."""

    @abstractmethod
    def forward(
        self, images: Tensor, targets: Sequence[ImageTarget], drop: DropRule | None = None
    ) -> dict[str, Tensor]:
        """Training losses, each with its weight applied; their sum is the total loss.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1], any size.
            targets: One per image, of the same size.
            drop: DropLoss' rule, or None for the plain classification loss.

        Returns:
            Scalars ``semantic``, ``objectness``, ``proposal_box``, ``class``, ``box``, ``mask``.

        Raises:
            ShapeError: Images and targets differ in number or size.
        """

    @abstractmethod
    def detect(self, images: Tensor, score_threshold: float) -> tuple[list[Tensor], list[Detections], Tensor]:
        """Features, boxes and semantics of a batch; masks follow with ``mask_probs``.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1], any size.
            score_threshold: Detections must score above.

        Returns:
            The pyramid, finest level first; per image the detections without masks; (B, S + 1, H, W) float32
            semantic logits.
        """

    @abstractmethod
    def suppress(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Detections:
        """Per-class non-maximum suppression; as many as the settings allow stay, best first, without masks.

        Args:
            boxes: (N, 4) float.
            scores: (N,) float.
            classes: (N,) int64, thing index.
        """

    @abstractmethod
    def mask_probs(
        self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], classes: Sequence[Tensor]
    ) -> list[Tensor]:
        """Masks inside boxes.

        Args:
            pyramid: What ``detect`` returned.
            boxes: Per image (N, 4) float.
            classes: Per image (N,) int64, thing index.

        Returns:
            Per image (N, 28, 28) float32, probability of the object inside its box.
        """

    @abstractmethod
    def head_parameters(self) -> list[nn.Parameter]:
        """What self-training changes: proposal network, instance heads, semantic head, no normalisation."""

    def weights(self) -> dict[str, Tensor]:
        """Every weight by the name that network folders use, whichever library the parts come from."""
        return dict(self.state_dict())

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take what ``weights`` gives; names and shapes must agree."""
        self.load_state_dict(dict(weights))

    def freeze_normalisation(self) -> None:
        """Use the stored statistics and keep them; call after every ``train()``."""
        for module in self.modules():
            if is_normalisation(module):
                module.eval()


def is_normalisation(module: nn.Module) -> bool:
    """Whether the module is a batch, group or layer normalisation."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm)


def parameters_without_normalisation(*parts: nn.Module) -> list[nn.Parameter]:
    """The parameters of ``parts`` in their order, those of normalisation layers left out."""
    return [
        weight
        for part in parts
        for module in part.modules()
        if not is_normalisation(module)
        for weight in module.parameters(recurse=False)
    ]


def check_targets(images: Tensor, targets: Sequence[ImageTarget]) -> tuple[int, int]:
    """(H, W) that the images and all targets have.

    Raises:
        ShapeError: They differ in number or size.
    """
    size = (int(images.shape[-2]), int(images.shape[-1]))
    sizes = {tuple(target.semantic.shape) for target in targets}
    if len(targets) != len(images) or sizes != {size}:
        raise ShapeError(
            f"{len(images)} images of {size} need as many targets of that size. "
            f"Got: {len(targets)} targets of {sorted(sizes)}"
        )
    return size
