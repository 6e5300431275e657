"""A registered network answers: through MLflow's loader, its scoring server, and `mlflow models serve`."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
import pytest
import torch

from gestalt.config.network import PredictSettings
from gestalt.config.presets import default_settings
from gestalt.data.images import decode_png, encode_png
from gestalt.errors import DataError
from gestalt.inference.predictor import Predictor
from gestalt.network.architecture import build_panoptic_network
from gestalt.network.checkpoint import WEIGHTS, NetworkCard, save_network
from gestalt.panoptic import UInt8Array, Vocabulary, ids_to_rgb, segment_ids
from gestalt.serving import SCORE_DIGITS, _load_pyfunc
from gestalt.tracking.registry import CHAMPION, MODEL, can_be_served, find_version, register_candidate
from gestalt.tracking.served_model import SETTINGS_FILE, package_network
from gestalt.tracking.store import open_store, store_uri
from tests.narrow_network import narrow_settings

CPU = torch.device("cpu")
NAMES = ("road", "sky", "building", "person", "car")
TRAINED_HEIGHT = 48


@pytest.fixture(scope="module")
def settings() -> PredictSettings:
    embedded: PredictSettings = default_settings("predict")
    merge = dataclasses.replace(embedded.merge, score_threshold=0.4, min_stuff_share=0.01)
    return dataclasses.replace(embedded, height_px=0, view_scales=[1.0], view_flip=False, merge=merge)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    network = build_panoptic_network(narrow_settings(), n_things=2, n_stuff=3).eval()
    with torch.no_grad():
        network.instance_heads.stages[0].classify.weight.mul_(80)
        network.instance_heads.mask_head.classify.bias.fill_(2.0)
    place = tmp_path_factory.mktemp("network")
    card = NetworkCard(
        narrow_settings(), Vocabulary((4, 1), (0, 2, 3)), (TRAINED_HEIGHT, 64), class_names=NAMES
    )
    save_network(place, network, card)
    return place


@pytest.fixture(scope="module")
def model(folder: Path, settings: PredictSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package_network(folder, settings, tmp_path_factory.mktemp("models") / "network-abc")


@pytest.fixture(scope="module")
def loaded(model: Path) -> Any:
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(model))


def picture(seed: int, size: tuple[int, int] = (50, 70)) -> UInt8Array:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (*size, 3), np.uint8)


def encoded(image: UInt8Array) -> str:
    return base64.b64encode(encode_png(image)).decode()


def check_answer(answer: dict[str, Any], image: UInt8Array, predictor: Predictor) -> None:
    """The answer says exactly what a predictor says."""
    expected = predictor(image)
    assert (answer["height"], answer["width"]) == image.shape[:2]
    ids = decode_png(base64.b64decode(answer["panoptic_png"]), "answer")
    np.testing.assert_array_equal(ids, ids_to_rgb(segment_ids(expected.panoptic)))
    found = {
        (entry["category"], entry["is_thing"], entry["area"], entry["score"]) for entry in answer["segments"]
    }
    assert found == {
        (NAMES[entry.unified_class], entry.instance > 0, entry.area_px, round(entry.score, SCORE_DIGITS))
        for entry in expected.segments
    }
    assert len(answer["segments"]) == len(expected.segments) > 0


def test_an_answer_is_what_the_predictor_says(loaded: Any, folder: Path, settings: PredictSettings) -> None:
    images = [picture(0), picture(1, (96, 64)), picture(2, (1, 1))]
    answers = loaded.predict(pd.DataFrame({"image": [encoded(image) for image in images]}))
    trained = dataclasses.replace(settings, height_px=TRAINED_HEIGHT)
    predictor = Predictor.load(folder, CPU, trained)
    for answer, image in zip(answers.to_dict("records"), images, strict=True):
        check_answer(answer, image, predictor)
    kinds = {entry["is_thing"] for answer in answers["segments"] for entry in answer}
    assert kinds == {True, False}


def test_parameters_of_a_question_reach_the_predictor(
    loaded: Any, folder: Path, settings: PredictSettings
) -> None:
    image = picture(3, (32, 32))
    params = {"score_threshold": 0.45, "height": 0, "views": [1.0, 1.5], "flip": True}
    answer = loaded.predict(pd.DataFrame({"pixels": [image.tolist()]}), params=params).iloc[0].to_dict()
    asked = dataclasses.replace(
        settings,
        height_px=0,
        view_scales=[1.0, 1.5],
        view_flip=True,
        merge=dataclasses.replace(settings.merge, score_threshold=0.45),
    )
    check_answer(answer, image, Predictor.load(folder, CPU, asked))


def test_a_jpeg_and_a_grey_picture_are_pictures(loaded: Any) -> None:
    import cv2

    content = bytes(cv2.imencode(".jpg", picture(4))[1])
    grey = encode_png(picture(5)[..., 0])
    rows = [base64.b64encode(entry).decode() for entry in (content, grey)]
    answers = loaded.predict(pd.DataFrame({"image": rows}))
    assert answers[["height", "width"]].to_numpy().tolist() == [[50, 70], [50, 70]]


def test_the_example_of_the_model_is_a_picture(model: Path, loaded: Any) -> None:
    example = json.loads((model / "serving_input_example.json").read_text())["dataframe_split"]
    answer = loaded.predict(pd.DataFrame(example["data"], columns=example["columns"]))
    assert answer["height"].tolist() == [8]


@pytest.fixture(scope="module")
def client(loaded: Any) -> Any:
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    return TestClient(init(loaded))


def test_the_scoring_server_answers_in_json(client: Any, folder: Path, settings: PredictSettings) -> None:
    image = picture(0)
    question = {"dataframe_records": [{"image": encoded(image)}], "params": {"score_threshold": 0.4}}
    response = client.post("/invocations", json=question)
    assert response.status_code == 200
    trained = dataclasses.replace(settings, height_px=TRAINED_HEIGHT)
    check_answer(response.json()["predictions"][0], image, Predictor.load(folder, CPU, trained))


@pytest.mark.parametrize(
    ("row", "params", "message"),
    [
        ({"image": "%%%"}, {}, "row 0: `image` is no base64"),
        ({"image": base64.b64encode(b"GIF89a").decode()}, {}, "unreadable image: `image` of row 0"),
        ({"image": encoded(picture(0))[:400]}, {}, "unreadable image: `image` of row 0"),
        ({"image": 3}, {}, "row 0 must hold a picture"),
        ({"photo": "x"}, {}, "needs the column `image` or the column `pixels`"),
        ({"pixels": [[[1, 2]]]}, {}, "`pixels` must be (H, W, 3) RGB. Got: (1, 1, 2)"),
        ({"pixels": [[[1, 2, 3]], []]}, {}, "must have one length"),
        ({"pixels": [[[1, 2, 300]]]}, {}, "`pixels` must be 0 to 255. Got: 1 to 300"),
        ({"image": "AA", "pixels": [[[1, 2, 3]]]}, {}, "one of the two"),
        ({"image": "AA"}, {"score_threshold": 1.5}, "params.score_threshold must be at most 1. Got: 1.5"),
        (
            {"image": "AA"},
            {"height": -2},
            "params.height must be a number of rows, 0 (the picture's own) or -1 (",
        ),
        ({"image": "AA"}, {"views": [1.0, 0.0]}, "params.views must be at least 0.01. Got: 0.0"),
        ({"image": "AA"}, {"views": []}, "params.views must hold at least one scale"),
        ({"image": "AA"}, {"views": "big"}, "views"),
    ],
)
def test_a_wrong_question_gets_status_400_and_the_reason(
    client: Any, row: dict[str, Any], params: dict[str, Any], message: str
) -> None:
    response = client.post("/invocations", json={"dataframe_records": [row], "params": params})
    assert response.status_code == 400
    assert message in response.json()["message"]


def test_a_model_holds_the_network_without_pickle_and_without_a_copy(model: Path, folder: Path) -> None:
    files = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert f"data/network/{WEIGHTS}" in files
    assert not [name for name in files if name.endswith((".pkl", ".pt", ".pth", ".py"))]
    assert (model / "data/network" / WEIGHTS).samefile(folder / WEIGHTS)
    assert "loader_module: gestalt.serving" in (model / "MLmodel").read_text()


def test_where_links_do_not_work_the_network_is_copied(
    folder: Path, settings: PredictSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(target: Path, source: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    model = package_network(folder, settings, tmp_path / "model")
    copied = model / "data/network" / WEIGHTS
    assert copied.read_bytes() == (folder / WEIGHTS).read_bytes()
    assert not copied.samefile(folder / WEIGHTS)


def test_a_packaging_that_is_stopped_leaves_nothing(
    folder: Path, settings: PredictSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gestalt.tracking.served_model._link", stop)
    with pytest.raises(KeyboardInterrupt):
        package_network(folder, settings, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_its_settings_names_the_command(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "network")
    with pytest.raises(DataError, match=rf"{SETTINGS_FILE} does not exist; register the network anew"):
        _load_pyfunc(str(tmp_path / "network"))


@pytest.fixture
def champion(folder: Path, settings: PredictSettings, tmp_path: Path) -> Path:
    """A fresh store with one registered network; the folder that holds ``mlruns``."""
    client, experiment = open_store(tmp_path)
    run = client.create_run(experiment)
    for _ in range(2):
        version = register_candidate(
            client,
            run.info.run_id,
            md5="0123456789abcdef.dir",
            evaluation_hash="same",
            commit="abc",
            metrics={"PQ/cityscapes": 20.0},
            settings=settings,
            folder=folder,
        )
        assert version == "1"
    found = find_version(client, CHAMPION)
    assert found is not None
    assert can_be_served(found)
    return tmp_path


@pytest.fixture
def address(champion: Path) -> Iterator[str]:
    """``mlflow models serve`` of the champion, as a user starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{MODEL}@{CHAMPION}"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    bin_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"MLFLOW_TRACKING_URI": store_uri(champion), "PATH": bin_first}
    log = champion / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/ping", process, log)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            # The command starts the server as a child; both are in the session made for them.
            os.killpg(process.pid, 15)
            process.wait(30)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1800):
        assert process.poll() is None, log.read_text()
        try:
            with urlopen(address, timeout=5) as response:
                assert response.status == 200
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.mark.slow
def test_mlflow_models_serve_answers_with_the_champion(
    address: str, folder: Path, settings: PredictSettings
) -> None:
    image = picture(7)
    body = json.dumps({"dataframe_split": {"columns": ["image"], "data": [[encoded(image)]]}}).encode()
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(address, body, headers), timeout=60) as response:
        answer = json.load(response)["predictions"][0]
    trained = dataclasses.replace(settings, height_px=TRAINED_HEIGHT)
    check_answer(answer, image, Predictor.load(folder, CPU, trained))
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(address, body.replace(b"image", b"photo"), headers), timeout=60)
    assert refused.value.code == 400
    assert "needs the column" in json.load(refused.value)["message"]
