"""docs/small-data.md is rendered from the kept runs, whose trials are as many for each method and alike."""

import json
from collections import Counter
from dataclasses import asdict

from benchmarks.small_data import PAGE, render
from benchmarks.tuning import CHOSEN, search, stored


def test_tables_are_rendered_from_the_kept_runs():
    text = PAGE.read_text()
    assert text == render(text)


def test_every_method_had_as_many_trials_of_one_setting():
    kept = [line["run"] for line in stored("search")]
    assert len(set(Counter(run["method"] for run in kept).values())) == 1
    drawn = ("label", "method", "options")
    assert len({json.dumps([run[name] for name in run if name not in drawn]) for run in kept}) == 1


def test_kept_trials_are_those_that_the_study_asks_for():
    asked = json.loads(json.dumps([asdict(run) for run in search()]))
    kept = [line["run"] for line in stored("search")]
    assert kept == asked[: len(kept)]


def test_no_trial_of_the_search_has_read_the_test_images():
    assert not any(line["run"]["test"] or "test_knn_top1" in line["result"] for line in stored("search"))


def test_what_was_chosen_is_the_best_trial_of_its_method():
    best = {}
    for line in sorted(stored("search"), key=lambda line: line["result"].get("knn_top1", 0.0)):
        best[line["run"]["method"]] = line["run"]["label"]
    assert best == CHOSEN
