"""DVC stage ``report``: metrics and pictures of all stages -> one page and the record of the run."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from gestalt.audit.report import ReportSubject, write_report
from gestalt.audit.report_pictures import Workspace
from gestalt.audit.report_tables import QUALITY_HEADER
from gestalt.matching.dense_inverse_search import DenseInverseSearch
from gestalt.runtime import choose_device
from gestalt.tracking.closing import Closing, close_pipeline
from gestalt.tracking.lineage import NOT_IN_KEY, flatten
from gestalt.tracking.store import ui_command
from stages.entry import Outcome, Stage, run_stage

METRICS = ("PQ", "SQ", "RQ", "PQ_thing", "PQ_stuff", "mIoU", "pixel_accuracy")
LABELS = "labels_"
PLAIN_WIDTH = 110


def main() -> None:
    """Run the stage."""
    run_stage(report, name="report")


def report(stage: Stage) -> Outcome:
    """Write the page, record the pipeline in MLflow, print the numbers."""
    params = stage.params
    command = ui_command(params.report.mlflow_port)
    parameters = {key: value for key, value in flatten(params).items() if not key.startswith(NOT_IN_KEY)}
    subject = ReportSubject(params.preset, params.batches, params.benchmarks, parameters, command)
    measure_flow = DenseInverseSearch(params.motion.dense_inverse_search)
    path = write_report(subject, params.report, params.frames, Workspace(), measure_flow)
    closing = close_pipeline(params, device=str(choose_device(params.runtime.device)))
    show_numbers(closing)
    Console().print(f"Report   {path}\nRuns     {command}", highlight=False, soft_wrap=True)
    return Outcome(closing.metrics, {"run_id": closing.run_id, "model_version": closing.version})


def show_numbers(closing: Closing) -> None:
    """Print a row per benchmark and batch: final network, guided network, pseudo-labels."""
    table = Table("", "", *QUALITY_HEADER, title="percent, void-neutral", title_justify="left")
    for title, prefix, suffix in (
        ("self-trained network", "", ""),
        ("guided network", "", "_guided"),
        ("pseudo-labels", LABELS, ""),
    ):
        names = {f"{prefix}{metric}{suffix}": metric for metric in METRICS}
        subjects = dict.fromkeys(key.split("/")[1] for key in closing.metrics if key.split("/")[0] in names)
        for subject in subjects:
            values = [closing.metrics.get(f"{name}/{subject}") for name in names]
            table.add_row(title, subject, *("-" if value is None else f"{value:.1f}" for value in values))
    # Where no terminal tells its width, rich would squeeze the numbers.
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)


if __name__ == "__main__":
    main()
