"""docs/small-data.md is rendered from the kept runs, whose trials are as many for each method and alike."""

import json
from collections import Counter
from dataclasses import asdict

from benchmarks.small_data import PAGE, render
from benchmarks.tuning import METHODS, TRIALS, search, stored


def test_tables_are_rendered_from_the_kept_runs():
    text = PAGE.read_text()
    assert text == render(text)


def test_every_method_had_as_many_trials_of_one_budget():
    kept = [line["run"] for line in stored("search")]
    assert Counter(run["method"] for run in kept) == dict.fromkeys(METHODS, TRIALS)
    settings = {
        json.dumps([run[name] for name in run if name not in ("label", "method", "options")]) for run in kept
    }
    assert len(settings) == 1


def test_kept_trials_are_those_that_the_study_asks_for():
    asked = json.loads(json.dumps([asdict(run) for run in search()]))
    assert [line["run"] for line in stored("search")] == asked


def test_no_trial_of_the_search_has_read_the_test_images():
    assert not any(line["run"]["test"] or "test_knn_top1" in line["result"] for line in stored("search"))
