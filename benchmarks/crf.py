"""The fully connected CRF of one image: a file in, a file out, one JSON object with what it took.

SCENE is an .npz file with `image` (H, W, 3) uint8 and `probabilities` (K, H, W) float; OUT gets `probabilities`
(K, H, W) float32. `seconds` and `cpu_seconds` are those of the refinement: the check of the input, both lattices, all
iterations; not starting Python, importing torch, reading, taking logarithms, writing. `peak_rss_mib` is the most memory
the process ever had, everything included. --beside runs pydensecrf on the same scene after it, where it is installed
(Gestalt never needs it), in a process of its own, from a new CRF object to its probabilities, and adds its figures,
the ratios (above 1: ours is cheaper) and by how much the results differ.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.config.crf import CrfSettings
from gestalt.data.atomic_files import written_aside
from gestalt.errors import DataError, GestaltError
from gestalt.runtime import available_cores, choose_device, peak_memory_mib, start

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
LEAST_PROBABILITY = 1e-12


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse arguments, refine, print; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/crf.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", type=Path, required=True, metavar="SCENE.npz")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.npz")
    parser.add_argument("--beside", action="store_true", help="run pydensecrf on the same scene as well")
    parser.add_argument("--only-pydensecrf", action="store_true", help="run pydensecrf instead")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: one per core")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--gaussian-weight", type=float, default=3.0)
    parser.add_argument("--gaussian-sigma-px", type=float, default=1.0)
    parser.add_argument("--bilateral-weight", type=float, default=4.0)
    parser.add_argument("--bilateral-sigma-px", type=float, default=67.0)
    parser.add_argument("--bilateral-sigma-rgb", type=float, default=3.0)
    given = parser.parse_args(arguments)
    # Before torch is imported: its threads wait as the environment says at that time.
    start(threads=given.threads)
    settings = CrfSettings(
        iterations=given.iterations,
        gaussian_weight=given.gaussian_weight,
        gaussian_sigma_px=given.gaussian_sigma_px,
        bilateral_weight=given.bilateral_weight,
        bilateral_sigma_px=given.bilateral_sigma_px,
        bilateral_sigma_rgb=given.bilateral_sigma_rgb,
    )
    try:
        image, prob = read_scene(given.scene)
        if given.only_pydensecrf:
            report, refined = refine_with_pydensecrf(image, prob, settings)
        else:
            report, refined = refine_with_gestalt(image, prob, settings, given.device)
        write_probabilities(given.out, refined)
        if given.beside:
            report["pydensecrf"] = beside(sys.argv[1:] if arguments is None else arguments, report, refined)
    except GestaltError as error:
        print(f"benchmarks/crf.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report))
    return 0


def read_scene(path: Path) -> tuple[UInt8Array, FloatArray]:
    """Image and probabilities of a scene.

    Raises:
        DataError: The file is missing, no .npz file, lacks an array, or an array has another type.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            image, prob = arrays["image"], arrays["probabilities"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} must be an .npz file with image and probabilities; make it with numpy.savez. Got: {error}"
        ) from error
    if image.dtype != np.uint8 or prob.dtype.kind != "f" or prob.ndim != 3:
        raise DataError(
            f"{path}: image must be (H, W, 3) uint8 and probabilities (K, H, W) float. "
            f"Got: {image.shape} {image.dtype} and {prob.shape} {prob.dtype}"
        )
    return image, prob.astype(np.float32, copy=False)


def write_probabilities(path: Path, prob: FloatArray) -> None:
    """A finished file, or none."""
    with written_aside(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, probabilities=np.ascontiguousarray(prob))


def refine_with_gestalt(
    image: UInt8Array, prob: FloatArray, settings: CrfSettings, device_name: str
) -> tuple[dict[str, Any], FloatArray]:
    """What it took, and the refined probabilities."""
    import torch

    from gestalt.semantics.crf import refine

    device = choose_device(device_name, key="--device")
    log_prob = torch.from_numpy(prob).to(device).clamp_(min=LEAST_PROBABILITY).log_()[None]
    images = torch.from_numpy(image).to(device)[None]

    def run() -> torch.Tensor:
        refined = refine(images, log_prob, settings)[0]
        if device.type != "cpu":
            torch.cuda.synchronize(device)
        return refined

    report, refined = timed(run)
    described = {"device": str(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {**described, **report, "size": list(prob.shape)}, refined.cpu().numpy()


def refine_with_pydensecrf(
    image: UInt8Array, prob: FloatArray, settings: CrfSettings
) -> tuple[dict[str, Any], FloatArray]:
    """What it took, and the refined probabilities.

    Raises:
        DataError: The package is not installed.
    """
    if importlib.util.find_spec("pydensecrf") is None:
        raise DataError("pydensecrf is not installed here; --only-pydensecrf needs it, Gestalt does not")
    from pydensecrf.densecrf import DenseCRF2D

    n_labels, height, width = prob.shape
    unary = -np.log(np.clip(prob, LEAST_PROBABILITY, None)).reshape(n_labels, -1)
    image = np.ascontiguousarray(image)

    def run() -> FloatArray:
        crf = DenseCRF2D(width, height, n_labels)
        crf.setUnaryEnergy(unary)
        if settings.gaussian_weight:
            crf.addPairwiseGaussian(settings.gaussian_sigma_px, compat=settings.gaussian_weight)
        if settings.bilateral_weight:
            crf.addPairwiseBilateral(
                settings.bilateral_sigma_px,
                settings.bilateral_sigma_rgb,
                image,
                compat=settings.bilateral_weight,
            )
        return np.asarray(crf.inference(settings.iterations)).reshape(n_labels, height, width)

    return timed(run)


def timed(run: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """What a call takes, and what it returns."""
    started, started_cpu = time.perf_counter(), time.process_time()
    result = run()
    report = {
        "seconds": round(time.perf_counter() - started, 4),
        "cpu_seconds": round(time.process_time() - started_cpu, 4),
        "peak_rss_mib": round(peak_rss_mib(), 1),
    }
    return report, result


def peak_rss_mib() -> float:
    """Largest resident memory of this program; what the system counts for a process begins with its parent's."""
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="ascii").splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return peak_memory_mib()


def beside(arguments: Sequence[str], ours: dict[str, Any], refined: FloatArray) -> dict[str, Any] | str:
    """Pydensecrf in a process of its own, on the same scene; "absent" where it is not installed."""
    if importlib.util.find_spec("pydensecrf") is None:
        return "absent"
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other.npz"
        kept = [word for word in arguments if word != "--beside"]
        command = [sys.executable, __file__, *kept, "--only-pydensecrf", "--out", str(other)]
        theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        with np.load(other) as arrays:
            wanted = arrays["probabilities"]
    return {
        **theirs,
        "ratio_seconds": round(theirs["seconds"] / ours["seconds"], 3),
        "ratio_cpu_seconds": round(theirs["cpu_seconds"] / ours["cpu_seconds"], 3),
        "same_label_share": float((refined.argmax(0) == wanted.argmax(0)).mean()),
        "mean_difference": float(np.abs(refined - wanted).mean()),
        "max_difference": float(np.abs(refined - wanted).max()),
    }


if __name__ == "__main__":
    sys.exit(main())
