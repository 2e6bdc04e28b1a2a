"""Statistics, summary and who is ahead."""

from typing import Any

import numpy as np
import pytest
from made_bench import made_up_row, made_up_rows
from scipy import stats

from ssl_zoo.bench.report import summary
from ssl_zoo.bench.report.summaries import finding
from ssl_zoo.bench.statistics import mean_interval, paired_interval


def test_mean_interval_is_students_t():
    values = [0.61, 0.64, 0.6, 0.66]
    low, high = stats.t.interval(0.9, df=3, loc=np.mean(values), scale=stats.sem(values))
    interval = mean_interval(values, confidence=0.9)
    assert interval.ends == pytest.approx((low, high))
    assert interval.mean == pytest.approx(np.mean(values))


def test_one_value_has_no_interval_and_none_is_an_error():
    assert mean_interval([0.5]) == (0.5, None)
    assert mean_interval([0.5]).ends == (0.5, 0.5)
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


def test_paired_interval_uses_shared_seeds_only():
    first, second = {0: 3.0, 1: 5.0, 2: 9.0}, {1: 4.0, 2: 7.0, 7: 100.0}
    assert paired_interval(first, second) == mean_interval([1.0, 2.0])
    assert paired_interval({0: 1.0}, {1: 1.0}) is None


# summary


def test_summary_orders_by_primary_metric_and_puts_the_baseline_last():
    summaries = summary(made_up_rows(["byol", "moco", "dino"], 3))
    assert [item.label for item in summaries] == ["dino", "byol", "moco", "random"]
    assert summaries[0].gain.mean == pytest.approx(31, abs=1)
    assert summaries[-1].gain == (0, 0)
    by_linear = summary([made_up_row("a", 0, 0.5, linear_top1=0.1), made_up_row("b", 0, 0.4)], "linear_top1")
    assert [item.label for item in by_linear] == ["b", "a"]


def test_a_collapsed_run_counts_and_a_stopped_or_failed_one_does_not():
    rows = [
        made_up_row("dino", 0, 0.6),
        made_up_row("dino", 1, 0.2, status="collapsed", collapse_verdict="complete"),
        made_up_row("dino", 2, 0.9, status="stopped"),
        made_up_row("dino", 3, None, status="failed", error="RuntimeError: out of memory"),
    ]
    (dino,) = summary(rows)
    assert dino.scores["knn_top1"].mean == pytest.approx(0.4)
    assert dino.status == "1 done, 1 collapsed, 1 stopped, 1 failed"
    assert dino.verdict == "1 healthy, 1 complete"


def test_nan_counts_as_not_measured():
    (dino,) = summary([made_up_row("dino", 0, float("nan"))])
    assert "knn_top1" not in dino.scores


# who is ahead


def said(scores: dict[str, list[float]]) -> str:
    rows = [made_up_row(label, s, score) for label, own in scores.items() for s, score in enumerate(own)]
    return " ".join(finding(summary(rows), "knn_top1"))


def test_three_seeds_apart_name_the_leader_with_the_paired_interval():
    low, high = mean_interval([10.0, 11.0, 12.0]).ends
    sentence = said({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.49, 0.58], "random": [0.3, 0.3, 0.3]})
    assert f"the leader is a, ahead of b by 11.0 points (95 %: {low:+.1f} to {high:+.1f})" in sentence
    assert "a +30.0 points, b +19.0 points" in sentence


def test_an_interval_with_zero_in_it_names_no_winner():
    sentence = said({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.7, 0.6]})
    assert "no clear winner: a leads b by 3.3 points" in sentence


def test_more_methods_widen_the_intervals():
    two = {"a": [0.5, 0.51, 0.52], "b": [0.45, 0.47, 0.45]}
    assert "the leader is a" in said(two)
    assert "no clear winner" in said(two | {"c": [0.2, 0.21, 0.22], "d": [0.1, 0.12, 0.12]})


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"a": [0.5], "b": [0.4]}, "one seed: too few seeds to rank (use --seeds 3)"),
        ({"a": [0.5, 0.5], "b": [0.4, 0.4]}, "two seeds: too few seeds to rank (use --seeds 3)"),
        ({"a": [0.5] * 3, "b": [0.4] * 2}, "only 2 of 3 seeds were finished by every method: too few"),
        ({"a": [0.2], "random": [0.3]}, "No method is above the untrained backbone on k-NN top-1: a -10.0"),
        ({"a": [0.5], "random": [0.3]}, "only a has a score: there is nothing to rank"),
        (
            {"a": [None], "b": [None]},
            "without labels no method is ranked; label about 100 images and run: ssl-zoo",
        ),
    ],
)
def test_nobody_is_named_without_grounds(scores: Any, words: str):
    assert words in said(scores)


def test_all_failed_says_so():
    rows = [made_up_row("a", 0, None, status="failed", error="ValueError: no")]
    assert finding(summary(rows), "knn_top1").line == "no method finished: there is nothing to rank"
