"""A registered network as a service: pictures in, panoptic maps out, the forms of ``tracking.served_model``.

MLflow imports this module by its name when it opens a model, and calls ``_load_pyfunc``.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from gestalt.config.network import PredictSettings
from gestalt.config.schema import check_ranges, fill
from gestalt.data.images import decode_image, encode_png
from gestalt.errors import ConfigError, DataError
from gestalt.inference.class_legend import class_names
from gestalt.inference.predictor import PanopticPrediction, Predictor
from gestalt.network.checkpoint import NetworkCard, load_network
from gestalt.network.panoptic_model import PanopticModel
from gestalt.panoptic import UInt8Array, ids_to_rgb, segment_ids, segments_info
from gestalt.runtime import choose_device
from gestalt.tracking.served_model import SETTINGS_FILE, TRAINED_HEIGHT, explain_to_client

SCORE_DIGITS = 6

# Settings by the names that questions have for them.
ASKED_AS = {"merge.score_threshold": "score_threshold", "view_scales": "views"}


class ServedNetwork:
    """Answers tables of pictures; MLflow has checked their columns and filled the parameters in."""

    def __init__(
        self, network: PanopticModel, card: NetworkCard, settings: PredictSettings, device: torch.device
    ) -> None:
        self._network, self._card, self._settings, self._device = network, card, settings, device

    def predict(self, questions: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Segment pictures.

        Args:
            questions: A picture per row, in one of two columns: ``image``, a PNG or JPEG in base64, or
                ``pixels``, (H, W, 3) nested lists of RGB 0..255.
            params: ``score_threshold``, ``height`` (rows that pictures are scaled to for the network, 0 keeps
                their own, -1 is the trained one), ``views`` (scales to average), ``flip``.

        Returns:
            In the order of the questions: ``height``, ``width``, ``panoptic_png`` (base64, COCO panoptic
            colours, of the picture's size) and ``segments``, COCO's ``segments_info`` with ``category``,
            ``is_thing`` and ``score``.

        Raises:
            MlflowException: With the message for the asker: a picture cannot be read, or a parameter is out
                of range.
        """
        with explain_to_client():
            if not {"image", "pixels"} & set(questions.columns):
                raise DataError(
                    "a question needs the column `image` or the column `pixels`; see docs/serving.md"
                )
            settings = self._settings_of(params or {})
            images = [_read(row, number) for number, row in enumerate(questions.to_dict("records"))]
            predictor = Predictor(self._network, self._card, settings, self._device)
            return pd.DataFrame([self._answer(predictor(image)) for image in images])

    def _settings_of(self, params: Mapping[str, Any]) -> PredictSettings:
        own = self._settings
        height = int(params.get("height", own.height_px or TRAINED_HEIGHT))
        if height < TRAINED_HEIGHT:
            raise ConfigError(
                f"params.height must be a number of rows, 0 (the picture's own) or {TRAINED_HEIGHT} (those that the "
                f"network was trained at). Got: {height}"
            )
        settings = dataclasses.replace(
            own,
            height_px=self._card.image_size[0] if height == TRAINED_HEIGHT else height,
            view_scales=[float(scale) for scale in params.get("views", own.view_scales)],
            view_flip=bool(params.get("flip", own.view_flip)),
            merge=dataclasses.replace(
                own.merge,
                score_threshold=float(params.get("score_threshold", own.merge.score_threshold)),
            ),
        )
        if not settings.view_scales:
            raise ConfigError("params.views must hold at least one scale, such as [1.0]")
        try:
            check_ranges(settings, "params")
        except ConfigError as error:
            message = str(error)
            for own_name, asked in ASKED_AS.items():
                message = message.replace(f"params.{own_name} ", f"params.{asked} ")
            raise ConfigError(message) from error
        return settings

    def _answer(self, prediction: PanopticPrediction) -> dict[str, Any]:
        panoptic, things = prediction.panoptic, self._card.vocabulary.unified_things
        names = class_names(self._card)
        scores = {
            1 + entry.unified_class + 256 * entry.instance: entry.score for entry in prediction.segments
        }
        segments = [
            {
                "id": entry["id"],
                "category_id": entry["category_id"],
                "category": names[entry["category_id"]],
                "is_thing": entry["category_id"] in things,
                "score": round(scores[entry["id"]], SCORE_DIGITS),
                "area": entry["area"],
                "bbox": entry["bbox"],
            }
            for entry in segments_info(panoptic, things)
        ]
        png = base64.b64encode(encode_png(ids_to_rgb(segment_ids(panoptic)))).decode()
        return {
            "height": panoptic.size[0],
            "width": panoptic.size[1],
            "panoptic_png": png,
            "segments": segments,
        }


def _load_pyfunc(path: str) -> ServedNetwork:
    """Open the data of an MLflow model: a network folder with ``predict.json`` in it."""
    folder = Path(path)
    file = folder / SETTINGS_FILE
    if not file.is_file():
        raise DataError(f"{file} does not exist; register the network anew with `dvc repro report`")
    settings: PredictSettings = fill(PredictSettings, json.loads(file.read_text(encoding="utf-8")), "predict")
    device = choose_device()
    network, card = load_network(folder, device)
    return ServedNetwork(network, card, settings, device)


def _read(row: Mapping[Hashable, Any], number: int) -> UInt8Array:
    """The picture of a row, (H, W, 3) uint8 RGB."""
    image, pixels = row.get("image"), row.get("pixels")
    has_image, has_pixels = isinstance(image, str), isinstance(pixels, list | np.ndarray)
    if has_image == has_pixels:
        raise DataError(
            f"row {number} must hold a picture in `image` (base64 of a PNG or JPEG) or in `pixels` (nested lists): "
            "one of the two"
        )
    if has_pixels:
        return _from_lists(pixels, number)
    try:
        content = base64.b64decode(str(image), validate=True)
    except binascii.Error as error:
        raise DataError(f"row {number}: `image` is no base64: {error}") from error
    return decode_image(content, f"`image` of row {number}")


def _from_lists(pixels: Any, number: int) -> UInt8Array:
    try:
        values = np.array([[list(pixel) for pixel in line] for line in pixels], dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise DataError(f"row {number}: the lines and pixels of `pixels` must have one length") from error
    if values.ndim != 3 or values.shape[-1] != 3 or values.size == 0:
        raise DataError(f"row {number}: `pixels` must be (H, W, 3) RGB. Got: {values.shape}")
    if values.min() < 0 or values.max() > 255:
        raise DataError(
            f"row {number}: `pixels` must be 0 to 255. Got: {int(values.min())} to {int(values.max())}"
        )
    return values.astype(np.uint8)
