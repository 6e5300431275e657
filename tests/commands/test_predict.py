"""`gestalt predict` as it is typed: what is refused at once, and what is said at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gestalt import cli
from gestalt.commands import predict
from gestalt.data.images import write_png
from gestalt.inference import paths

MISSPELT = {
    "predict gone.png": "gone.png does not exist",
    "predict . --network gone": "--network gone does not exist",
    "network export gone --out a.onnx": "the network gone does not exist",
    "network convert gone --out a.pth": "the network gone does not exist",
    "network import gone.ckpt --out x": "gone.ckpt does not exist",
    "network import . --out x --vocabulary gone.json": "gone.json does not exist",
}


@pytest.mark.parametrize("command", MISSPELT)
def test_a_misspelt_path_is_said_before_anything_large_is_imported(tmp_path: Path, command: str) -> None:
    code = f"""
import sys
from gestalt import cli
try:
    cli.main({command.split()})
finally:
    print([name for name in ("torch", "torchvision", "cv2") if name in sys.modules])
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (answer.returncode, answer.stdout) == (1, "[]\n"), answer.stderr
    assert answer.stderr.startswith(f"gestalt: {MISSPELT[command]}")


@pytest.mark.parametrize(
    ("n_images", "n_tracks", "forms", "said"),
    [
        (1, None, (), "1 image -> out"),
        (2, 1, (), "2 images, 1 object followed -> out"),
        (2, 0, ("coco",), "2 images, 0 objects followed -> out"),
        (2, 3, ("cityscapes", "overlay"), "2 images, 3 objects followed -> out"),
        # The ids of this form start again in every picture.
        (2, 3, ("cityscapes",), "2 images -> out"),
    ],
)
def test_the_summary_counts_what_can_be_seen_in_the_results(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    n_images: int,
    n_tracks: int | None,
    forms: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_png(Path("street.png"), np.zeros((4, 6, 3), np.uint8))
    Path("network").mkdir()
    settings = predict.own_section("predict")
    monkeypatch.setattr(predict, "_predict_settings", lambda *_: settings)

    def predict_path(_: Path, __: Path, out: Path, **___: Any) -> paths.PathSummary:
        return paths.PathSummary(n_images, (), out, n_tracks)

    monkeypatch.setattr(paths, "predict_path", predict_path)
    options = [word for form in forms for word in ("--format", form)]
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", "street.png", "--network", "network", "--out", "out", *options])
    assert not ended.value.code
    assert capsys.readouterr().out == f"{said}\n"
