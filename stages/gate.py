"""DVC stage ``gate``: audit results of all batches -> one verdict; a closed gate ends with exit code 1."""

from pathlib import Path

from gestalt.audit.gate import closed_message, judge_batches
from gestalt.errors import DataError
from stages.entry import Outcome, Stage, run_stage, write_json

AUDITS = Path("reports/audit")


def gate(stage: Stage) -> Outcome:
    """Stop the pipeline before training when the labels of a batch are not fit for it."""
    verdict = judge_batches(AUDITS, stage.params.batches, stage.params.gate.stop_on)
    # The evidence is written first: it stays in the workspace although the stage fails.
    write_json(Path("reports/gate.json"), verdict)
    if not verdict["open"]:
        raise DataError(closed_message(verdict, AUDITS))
    verdicts = {batch: found["verdict"] for batch, found in verdict["batches"].items()}
    return Outcome(metrics={"open": True, "verdicts": verdicts}, status={})


if __name__ == "__main__":
    run_stage(gate, name="gate")
