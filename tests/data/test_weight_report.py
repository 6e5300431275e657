"""Weights from elsewhere against a network, by hand."""

import torch

from gestalt.data.weight_report import SHOWN, WeightReport, compare_weights


def test_each_difference_is_of_one_kind() -> None:
    network = torch.nn.Linear(3, 2)
    report = compare_weights(network, {"weight": torch.ones(2, 4), "extra": torch.ones(1)})
    assert report == WeightReport(0, ("bias (2,)",), ("extra (1,)",), ("weight expected (2, 3), got (2, 4)",))
    assert not report.is_whole
    assert compare_weights(network, network.state_dict()) == WeightReport(2, (), (), ())
    assert compare_weights(network, network.state_dict()).is_whole


def test_long_lists_are_counted() -> None:
    names = tuple(f"weight {number}" for number in range(SHOWN + 3))
    lines = WeightReport(5, names, (), ()).lines()
    assert lines[0] == "5 weights fit"
    assert lines[1] == f"{SHOWN + 3} missing:"
    assert lines[1 + SHOWN :] == [f"  {names[SHOWN - 1]}", "  and 3 more", "0 unexpected", "0 misshapen"]
