"""What stands in a summary, and who is said to be ahead of whom, how surely and at what cost."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bench import made_up_results, made_up_row, made_up_rows
from scipy import stats

from ssl_zoo.bench.report import Finding, compare, finding, summary
from ssl_zoo.bench.report.words import p_value, percent, times
from ssl_zoo.bench.statistics import bootstrap_interval, wilson_interval


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


def test_a_reference_that_was_evaluated_once_holds_for_every_seed_and_one_with_seeds_is_paired():
    rows = [made_up_row("random", seed, 0.3 + 0.01 * seed) for seed in range(3)]
    rows += [made_up_row("supervised", seed, 0.5 + 0.01 * seed, method=None) for seed in range(3)]
    rows += [made_up_row("vit", 0, 0.9, method=None)]
    gains = {item.label: item.gain for item in summary(rows)}
    assert gains["supervised"] == pytest.approx((20, 0))
    assert gains["vit"].mean == pytest.approx(59)
    assert gains["vit"].half_width == pytest.approx(stats.t.ppf(0.975, 2) / np.sqrt(3))


# who is ahead


def rows_of(scores: dict[str, list[float]], **fields: Any) -> list[dict[str, Any]]:
    return [
        made_up_row(label, s, score, **fields) for label, own in scores.items() for s, score in enumerate(own)
    ]


def said(scores: dict[str, list[float]], folder: Path | None = None, **fields: Any) -> Finding:
    results = made_up_results(rows_of(scores), **fields)
    return finding(results["bench"], summary(results["rows"]), folder)


THREE = {"a": [0.50, 0.60, 0.70], "b": [0.40, 0.49, 0.58]}
FIVE = {"byol": [0.50, 0.52, 0.51, 0.53, 0.50], "dino": [0.52, 0.55, 0.54, 0.54, 0.53]}
"""dino is above byol by 2, 3, 3, 1 and 3 points."""


def test_the_first_sentence_reads_as_it_should():
    line, basis, context = said(FIVE)
    p = stats.ttest_rel(FIVE["dino"], FIVE["byol"]).pvalue
    assert line == (
        "At equal images dino is 2.4 \N{PLUS-MINUS SIGN} 1.1 points above byol "
        f"(p = .00{1e4 * p:.0f}, 5 seeds) at 4.0x the FLOPs (k-NN top-1, each method's own views)"
    )
    holds = stats.t.cdf(2.4 / (np.std([2, 3, 3, 1, 3], ddof=1) * np.sqrt(6 / 5)), df=4)
    assert basis == (
        "Seeds are paired: 95 % t intervals and t tests of the differences. The chance that the order holds "
        f"on a new seed: dino above byol {100 * holds:.0f} %. In training seconds: dino 4.0x byol."
    )
    assert context == "Defaults, 0 tuning trials."
    mirrored = said(FIVE, reference="dino")  # the better one is named first, whichever is the reference
    assert mirrored == (line, basis, context)


@pytest.mark.parametrize(
    ("fields", "opening", "cost", "views"),
    [
        ({"budget": {"steps": 500}}, "At equal images dino", "FLOPs", "each method's own views"),
        ({"budget": {"flops": 5e15}}, "At equal FLOPs dino", "seconds", "each method's own views"),
        ({"budget": {"seconds": 60}}, "At equal seconds dino", "FLOPs", "each method's own views"),
        ({"budget": {}, "views": "shared"}, "dino", "FLOPs", "the same views for all"),
    ],
)
def test_budget_and_views_are_named(fields: Any, opening: str, cost: str, views: str):
    line = said(FIVE, **fields).line
    assert line.startswith(f"{opening} is 2.4 ")
    assert line.endswith(f" at 4.0x the {cost} (k-NN top-1, {views})")


def test_a_run_that_a_collapse_ended_was_not_given_as_much():
    results = made_up_results(rows_of(FIVE))
    results["rows"][0]["status"] = "collapsed"
    line = finding(results["bench"], summary(results["rows"])).line
    assert line.startswith("At equal images, but for runs that a collapse ended, dino is 2.4 ")


def test_tuning_trials_are_named_where_there_was_training():
    assert said(FIVE, tuning={"trials": 20}).context == "20 tuning trials per method."
    assert said(FIVE, budget={}).context == ""


def test_fewer_than_five_seeds_tell_no_chance_for_a_new_one():
    line, basis, _ = said(THREE)
    assert "a is 11.0 \N{PLUS-MINUS SIGN} 2.5 points above b (p = .0027, 3 seeds)" in line
    assert "new seed" not in basis


def test_an_interval_with_zero_in_it_has_no_winner():
    line = said({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.7, 0.6]}).line
    assert line.startswith(
        "At equal images no winner between a and b (-3.3 \N{PLUS-MINUS SIGN} 28.7 points, p = .67, 3 seeds): "
        "an interval that holds zero"
    )
    assert "above" not in line


def test_every_method_is_compared_with_the_reference_and_more_of_them_ask_for_more():
    close = {"a": [0.50, 0.51, 0.52], "b": [0.45, 0.47, 0.45]}
    assert "a is 5.3 \N{PLUS-MINUS SIGN} 3.8 points above b (p = .026, 3 seeds)" in said(close).line
    more = close | {"c": [0.48, 0.52, 0.51], "d": [0.10, 0.12, 0.12]}
    line, basis, _ = said(more)
    assert "a is 39.7 \N{PLUS-MINUS SIGN} 1.4 points above d (p < .001, 3 seeds)" in line
    assert "no winner between a and c (" in line
    assert "b (-5.3 \N{PLUS-MINUS SIGN} 3.8 points, p = .053, 3 seeds): which may be chance among" in line
    assert "p adjusted over 3 methods (Holm)" in basis
    assert "no winner between b and " in said(more, reference="b").line
    assert "between b and d" not in line


def test_the_reference_needs_a_score():
    for reference in ("lost", "never"):
        scores = FIVE | {"lost": [None] * 5}
        results = made_up_results(rows_of(scores), reference=reference)
        (pair,) = compare(results["bench"], summary(results["rows"]))
        assert (pair.method.label, pair.reference.label) == ("dino", "byol")
        assert pair.difference.mean == pytest.approx(2.4)


def test_differences_that_are_equal_in_every_seed_raise_a_doubt():
    line, basis, _ = said({"a": [0.6, 0.7, 0.8], "b": [0.5, 0.6, 0.7]})
    assert "a is 10.0 \N{PLUS-MINUS SIGN} 0.0 points above b (p < .001, 3 seeds)" in line
    assert "The same difference in every seed to b: check that seeds matter." in basis


def test_a_method_with_too_few_seeds_is_left_out_and_the_others_are_compared():
    line = said(FIVE | {"moco": [0.4, 0.5]}).line
    assert "dino is 2.4" in line
    assert "; too few seeds to rank moco (to add seeds and keep finished cells: ssl-zoo bench" in line


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"a": [0.5], "b": [0.4]}, "one seed: too few seeds to rank (to add seeds"),
        ({"a": [0.5, 0.5], "b": [0.4, 0.4]}, "two seeds: too few seeds to rank (to add seeds"),
        ({"a": [0.5] * 3, "b": [0.4] * 2}, "only 2 of 3 seeds can be paired with a: too few seeds to rank"),
        ({"a": [0.5, None], "b": [None, 0.4]}, "no common seed: too few seeds to rank"),
        ({"a": [0.2], "random": [0.3]}, "No method is above the untrained backbone on k-NN top-1: a -10.0"),
        ({"a": [0.5], "random": [0.3]}, "only a has a score: there is nothing to rank"),
        (
            {"a": [None], "b": [None]},
            "without labels no method is ranked; label about 100 images and run: ssl-zoo",
        ),
    ],
)
def test_nobody_is_named_without_grounds(scores: Any, words: str):
    found = said(scores)
    assert words in f"{found.line} {found.text}"
    assert "above b" not in found.line


def test_all_failed_says_so():
    results = made_up_results([made_up_row("a", 0, None, status="failed", error="ValueError: no")])
    assert finding(results["bench"], summary(results["rows"])).line == (
        "no method finished: there is nothing to rank"
    )


def command(line: str) -> list[str]:
    return shlex.split(re.search(r"keep finished cells: (.*)\)", line)[1])


def test_the_command_that_adds_seeds_is_exact(tmp_path: Path):
    home = str(tmp_path / "my run")
    words = command(said({"a": [0.5], "b": [0.4]}, Path(home), plugins=["mine.py"]).line)
    assert words == [
        *("ssl-zoo", "bench", "--config", f"{home}/bench.yaml", "--seeds", "3", "--out", home),
        *("--plugin", "mine.py"),
    ]
    more = said({"a": [0.5] * 4, "b": [0.4] * 2}, tmp_path).line
    assert command(more)[5] == "4"  # seeds that failed run again
    assert "--seeds 3 --out FOLDER)" in said({"a": [0.5], "b": [0.4]}).line


def test_seeds_are_added_where_the_encoders_were_trained(tmp_path: Path):
    scores = {"a": [0.5], "b": [0.4]}
    evaluated = said(scores, tmp_path / "evaluations" / "x", evaluation_of="/runs/a").line
    assert "--config /runs/a/bench.yaml --seeds 3 --out /runs/a, then evaluate again)" in evaluated
    merged = said(scores, Path("runs/both"), runs={"../a": ["a-seed0"], "../b": ["b-seed0"]}).line
    assert merged.endswith(
        "ssl-zoo bench --config runs/a/bench.yaml --seeds 3 --out runs/a && "
        "ssl-zoo bench --config runs/b/bench.yaml --seeds 3 --out runs/b, then merge again)"
    )


# evaluation noise


def keep(folder: Path, label: str, seed: int, right: Any, **arrays: Any) -> Any:
    cell = folder / "cells" / f"{label}-seed{seed}"
    cell.mkdir(parents=True)
    truth = np.arange(len(right)) % 10
    predicted = np.where(right, truth, 11)
    np.savez(cell / "predictions.npz", label=truth, knn=predicted, linear=truth, **arrays)
    return right


def noise(basis: str) -> float:
    return float(re.search(r"\N{PLUS-MINUS SIGN} ([\d.]+) points \(95 %", basis)[1])


@pytest.mark.parametrize("grouped", [False, True])
def test_noise_of_the_test_images_is_told_apart_from_seeds(grouped: bool, tmp_path: Path):
    draws = np.random.default_rng(0)
    arrays = {"group": np.arange(2000) // 20} if grouped else {}
    hard = np.repeat(draws.random(100) * 0.5, 20)
    right = {
        label: np.array(
            [keep(tmp_path, label, s, draws.random(2000) > hard + low, **arrays) for s in range(5)]
        )
        for label, low in (("byol", 0.05), ("dino", 0.0))
    }
    _, basis, _ = said(FIVE, tmp_path)
    low, high = bootstrap_interval(right["dino"].mean(0) - right["byol"].mean(0), arrays.get("group"))
    assert noise(basis) == pytest.approx(50 * (high - low), abs=0.051)
    assert "another draw of the 2,000 test images would move dino over byol by" in basis
    assert ("(95 %, paired bootstrap by group)" in basis) == grouped
    assert "Apart from" not in said(FIVE, tmp_path, primary_metric="map_at_r").basis
    assert "Apart from" not in said(FIVE).basis


def test_noise_of_one_method_is_wilsons(tmp_path: Path):
    keep(tmp_path, "a", 0, np.arange(500) < 400)
    _, basis, _ = said({"a": [0.8]}, tmp_path)
    low, high = wilson_interval(400, 500)
    assert basis.endswith(
        f"would move a by \N{PLUS-MINUS SIGN} {50 * (high - low):.1f} points (95 %, Wilson)."
    )
    keep(tmp_path, "a", 1, np.arange(500) < 300)
    assert "(95 %, bootstrap)" in said({"a": [0.8, 0.6]}, tmp_path).basis


def test_predictions_that_cannot_be_read_or_compared_tell_no_noise(tmp_path: Path, caplog: Any):
    for label, images in (("a", 50), ("b", 60)):
        keep(tmp_path, label, 0, np.arange(images) < 40)
    assert said({"a": [0.8], "b": [0.7]}, tmp_path).basis == ""
    (tmp_path / "cells" / "a-seed0" / "predictions.npz").write_bytes(b"half a file")
    assert said({"a": [0.8]}, tmp_path).basis == ""
    assert "cannot be read" in caplog.text


def test_numbers_in_words():
    assert [p_value(p) for p in (0.0, 0.00099, 0.0123, 0.5, 1.0)] == [
        *("p < .001", "p < .001", "p = .012", "p = .5", "p = 1"),
    ]
    assert [times(ratio) for ratio in (1.94, 12.3, 1, 0.951, 0.532)] == [
        "1.9x",
        "12.3x",
        "1.0x",
        "1.0x",
        "0.53x",
    ]
    assert [percent(chance) for chance in (0.5, 0.974, 0.9999)] == ["50 %", "97 %", "> 99 %"]
