from __future__ import annotations

import dataclasses
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gestalt.config.network import PredictSettings
from gestalt.data.images import read_image, write_png
from gestalt.data.records import GroundTruthFrame
from gestalt.data.shards import ShardFolder
from gestalt.inference.benchmark import SCORE_DIGITS, BenchmarkImage, FramePredictor, predict_benchmark
from gestalt.inference.predictor import Predictor
from gestalt.panoptic import PanopticMap

CPU = torch.device("cpu")


def unreadable() -> PanopticMap:
    raise AssertionError("prediction must not read the truth")


def make_frames(folder: Path, n_frames: int) -> list[GroundTruthFrame]:
    generator = np.random.default_rng(0)
    frames = []
    for number in range(n_frames):
        path = folder / f"{number}.png"
        write_png(path, generator.integers(0, 256, (40, 56, 3), dtype=np.uint8))
        frames.append(GroundTruthFrame(f"f{number}", path, folder / "truth.png", unreadable))
    return frames


def predict(
    frames: list[GroundTruthFrame], network: Path, settings: PredictSettings, folder: Path, limit: float
) -> object:
    return predict_benchmark(
        frames,
        FramePredictor(network, settings, "cpu"),
        out_dir=folder / "out",
        cache_dir=folder / "cache",
        key={},
        shard_size=2,
        open_executor=None,
        max_failed_share=limit,
        label="predict",
    )


def test_predictions_are_stored_with_a_record_per_segment_and_without_a_look_at_the_truth(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    frames = make_frames(tmp_path / "in", 3)
    summary = predict(frames, network_folder, settings, tmp_path, 0.0)
    assert summary.n_failed == 0
    stored = ShardFolder(tmp_path / "out")
    assert stored.frame_ids == ["f0", "f1", "f2"]
    records = stored.records()
    assert list(records.columns) == ["frame_id", "unified_class", "instance", "score", "area_px"]
    for frame in frames:
        semantic, instance = (stored.read_map(frame.frame_id, kind) for kind in ("semantic", "instance"))
        assert semantic.dtype == np.uint8
        assert semantic.shape == instance.shape == (40, 56)
        for row in records[records["frame_id"] == frame.frame_id].itertuples():
            assert ((semantic == row.unified_class) & (instance == row.instance)).sum() == row.area_px


def test_a_broken_image_is_a_failed_frame_and_no_empty_prediction(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    frames = make_frames(tmp_path / "in", 2)
    frames[1].image.write_bytes(b"broken")
    summary = predict(frames, network_folder, settings, tmp_path, 0.5)
    assert (summary.n_ok + summary.n_empty, summary.n_failed) == (1, 1)
    assert ShardFolder(tmp_path / "out").frame_ids == ["f0"]


def test_a_frame_predictor_travels_to_workers_without_its_network(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    frame = make_frames(tmp_path, 1)[0]
    predictor = FramePredictor(network_folder, settings, "cpu")
    item = BenchmarkImage(frame.frame_id, frame.image)
    expected = predictor(item)
    content = pickle.dumps(predictor)
    assert len(content) < 5000
    copied = pickle.loads(content)(item)
    assert (copied.maps["semantic"] == expected.maps["semantic"]).all()
    assert read_image(frame.image).shape[:2] == copied.maps["instance"].shape


def test_an_image_inside_another_file_is_predicted_like_the_same_image_as_a_file(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    (frame,) = make_frames(tmp_path / "in", 1)
    inside = dataclasses.replace(
        frame,
        frame_id="inside",
        image=tmp_path / "many.tfrecord",
        read_image=partial(read_image, frame.image),
    )
    predict([frame, inside], network_folder, settings, tmp_path, 0.0)
    stored = ShardFolder(tmp_path / "out")
    for kind in ("semantic", "instance"):
        np.testing.assert_array_equal(stored.read_map("inside", kind), stored.read_map("f0", kind))


def test_the_network_sees_images_at_the_height_it_was_trained_at(
    network_folder: Path, settings: PredictSettings, tmp_path: Path
) -> None:
    (frame,) = make_frames(tmp_path, 1)
    trained_height = 48
    assert settings.height_px == 0
    assert read_image(frame.image).shape[0] != trained_height
    result = FramePredictor(network_folder, settings, "cpu")(BenchmarkImage(frame.frame_id, frame.image))
    for height, is_equal in ((trained_height, True), (0, False)):
        predictor = Predictor.load(network_folder, CPU, dataclasses.replace(settings, height_px=height))
        expected = predictor(read_image(frame.image)).segments
        scores = [round(entry.score, SCORE_DIGITS) for entry in expected]
        assert ([record["score"] for record in result.records] == scores) == is_equal
