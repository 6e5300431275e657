"""Pseudo-classes of an image as a plain callable, for whoever turns them into labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gestalt.config.semantics import SemanticsSettings
from gestalt.errors import ConfigError
from gestalt.features.loading import load_features
from gestalt.runtime import choose_device
from gestalt.semantics.probe import FloatArray, SemanticProbe, UInt8Array


@dataclass(frozen=True)
class SemanticLabeller:
    """Gives every pixel of an image a pseudo-class.

    Picklable and cheap to send: each process loads features and probe once, on the first image.

    Attributes:
        features_dir: Folder of the stage ``features``.
        semantics_dir: Folder of the stage ``semantics``.
        settings: Section ``semantics``.
        device: Where it runs: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    features_dir: Path
    semantics_dir: Path
    settings: SemanticsSettings
    device: str = "cpu"

    @cached_property
    def probe(self) -> SemanticProbe:
        """The fitted pseudo-classes.

        Raises:
            DataError: Features or probe are missing or do not belong together.
            ConfigError: The probe was fitted by another method, with another number of pseudo-classes, another
                geometry or other lengths of features.
        """
        features = load_features(self.features_dir, choose_device(self.device))
        probe = SemanticProbe.load(self.semantics_dir, features)
        for name, wanted, fitted in (
            ("method", self.settings.method, probe.card.method),
            ("geometry", self.settings.geometry, probe.card.geometry),
            (
                "unit_features",
                self.settings.unit_features and not probe.card.has_codes,
                probe.card.unit_features,
            ),
            ("n_pseudo_classes", self.settings.n_pseudo_classes, probe.card.n_pseudo_classes),
        ):
            if wanted != fitted:
                raise ConfigError(
                    f"semantics.{name} is {wanted}, but {self.semantics_dir} was fitted with {fitted}; "
                    "run `dvc repro semantics`"
                )
        return probe

    def __call__(
        self, image: UInt8Array, disparity: FloatArray | None, focal_length: float, stereo_baseline: float
    ) -> tuple[UInt8Array, FloatArray]:
        """Label one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            disparity: (H, W) float, pixels, 0 where there is no match; None without stereo.
            focal_length: Horizontal, pixels of ``image``.
            stereo_baseline: Metres.

        Returns:
            (H, W) uint8 pseudo-classes in 0..K-1, and (H, W) float32, the probability of each, in (0, 1].
        """
        prediction = self.probe.predict(image, disparity, focal_length, stereo_baseline, self.settings)
        return prediction.semantic_map, prediction.confidence

    def __getstate__(self) -> dict[str, Any]:
        """The paths and settings alone: networks are not sent between processes."""
        return {name: value for name, value in self.__dict__.items() if name != "probe"}
