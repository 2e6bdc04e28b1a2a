"""The scores that are folded away: which there are, and over what their intervals go."""

import pytest
from made_bench import made_up_row

from ssl_zoo.bench.report.more_scores import more_scores
from ssl_zoo.bench.statistics import mean_interval

FEW = [
    {"1": {"mean": 0.2, "half_width": 0.1, "draws": 5}, "10%": None},
    {"1": {"mean": 0.3}, "10%": {"mean": 0.5}},
]


def table(rows, labels):
    return {line.name: [str(cell) for cell in line.cells] for line in more_scores(rows, labels)}


def test_a_line_for_each_score_that_somebody_has():
    transfer = {"fashion-mnist": {"knn_top1": 0.71, "linear_top1": None}}
    rows = [
        made_up_row("dino", 0, 0.5, low_shot=FEW[0], cluster_ami=0.25, alpha_req=1.234, transfer=transfer),
        made_up_row("dino", 1, 0.5, low_shot=FEW[1], cluster_ami=0.25, alpha_req=1.234),
        made_up_row("dino", 2, 0.9, status="failed", cluster_ami=0.9),
        made_up_row("random", 0, 0.3),
    ]
    lines = table(rows, ["dino", "random"])
    half_width = 100 * mean_interval([0.2, 0.3]).half_width
    assert lines["1 label a class, %"] == [f"25.0 \N{PLUS-MINUS SIGN} {half_width:.1f}", "-"]
    assert lines["10 % of the labels, %"] == ["50.0", "-"]
    assert lines["clusters, AMI %"] == ["25.0 \N{PLUS-MINUS SIGN} 0.0", "-"]
    assert lines["alpha-ReQ"] == ["1.23 \N{PLUS-MINUS SIGN} 0.00", "-"]
    assert lines["on fashion-mnist, k-NN %"] == ["71.0", "-"]
    assert lines["linear balanced accuracy %"][1] == "32.0"
    assert not {"on fashion-mnist, linear %", "clusters, NMI %"} & set(lines)


@pytest.mark.parametrize("rows", [[], [made_up_row("dino", 0, None, status="failed")]])
def test_no_scores_are_no_lines(rows):
    assert more_scores(rows, ["dino"]) == []
