"""Statistics: the formulas against scipy's and other computations, what they promise against simulations."""

from functools import partial

import numpy as np
import pytest
from scipy import stats

from ssl_zoo.bench.statistics import (
    bootstrap_interval,
    holm,
    mean_interval,
    order_holds,
    paired_interval,
    paired_p,
    wilson_interval,
)

COVERS = partial(pytest.approx, 0.95, abs=0.02)


def by_seed(values):
    return dict(enumerate(np.asarray(values).tolist()))


# over seeds


def test_mean_interval_is_students_t():
    values = [0.61, 0.64, 0.6, 0.66]
    low, high = stats.t.interval(0.9, df=3, loc=np.mean(values), scale=stats.sem(values))
    interval = mean_interval(values, confidence=0.9)
    assert interval.ends == pytest.approx((low, high))
    assert interval.mean == pytest.approx(np.mean(values))


def test_one_value_has_no_interval_equal_ones_no_width_and_none_or_nan_is_an_error():
    assert mean_interval([0.5]) == (0.5, None)
    assert mean_interval([0.5]).ends == (0.5, 0.5)
    assert mean_interval([0.75] * 3) == (0.75, 0.0)
    for values in ([], [0.5, float("nan")]):
        with pytest.raises(ValueError, match="at least one value and finite ones"):
            mean_interval(values)


def test_pairs_are_the_seeds_that_both_have_with_a_finite_score():
    first, second = {0: 3.0, 1: 5.0, 2: 9.0, 3: float("nan")}, {1: 4.0, 2: 7.0, 3: 1.0, 7: 100.0}
    assert paired_interval(first, second) == mean_interval([1.0, 2.0])
    assert paired_p(first, second) == paired_p({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.0})
    assert paired_interval({0: 1.0}, {1: 1.0}) is None
    with pytest.raises(ValueError, match="two seeds that both have, got 1"):
        paired_p({0: 1.0}, {0: 1.0})


def test_paired_p_is_scipys_and_agrees_with_the_interval():
    first, second = np.random.default_rng(0).normal(size=(2, 200, 4))
    first += 0.9
    ours = [paired_p(by_seed(a), by_seed(b)) for a, b in zip(first, second, strict=True)]
    assert ours == pytest.approx(stats.ttest_rel(first, second, axis=1).pvalue)
    apart = [
        paired_interval(by_seed(a), by_seed(b)).ends[0] > 0
        or paired_interval(by_seed(a), by_seed(b)).ends[1] < 0
        for a, b in zip(first, second, strict=True)
    ]
    assert apart == [p < 0.05 for p in ours]
    assert 20 < sum(apart) < 180


def test_differences_without_spread_have_the_limits():
    first = {seed: 0.1 * seed for seed in range(5)}
    above = {seed: score + 0.2 for seed, score in first.items()}  # equal but for the last digit
    assert paired_interval(above, first) == pytest.approx((0.2, 0.0))
    assert (paired_p(above, first), paired_p(first, above), paired_p(first, first)) == (0.0, 0.0, 1.0)
    assert paired_p(dict.fromkeys(range(3), 0.1 + 0.2), dict.fromkeys(range(3), 0.3)) == 1.0
    assert (order_holds(above, first), order_holds(first, above), order_holds(first, first)) == (1, 1, 0.5)


def test_order_holds_is_the_share_of_new_seeds_and_needs_five():
    draws = np.random.default_rng(0)
    zero = dict.fromkeys(range(5), 0.0)
    # the chance is calibrated for differences of which nothing is known beforehand
    seeds = draws.normal(draws.uniform(-20, 20, (4000, 1)), 1, (4000, 6))
    known, new = seeds[:, :5], seeds[:, 5]
    chances = np.array([order_holds(by_seed(row), zero) for row in known])
    holds = np.sign(new) == np.sign(known.mean(1))
    close = chances < 0.95
    assert chances.mean() == pytest.approx(holds.mean(), abs=0.005)
    assert chances[close].mean() == pytest.approx(holds[close].mean(), abs=0.06)
    spread = known[0].std(ddof=1) * np.sqrt(1 + 1 / 5)
    assert chances[0] == pytest.approx(stats.t.cdf(abs(known[0].mean()) / spread, df=4))
    assert order_holds(by_seed(known[0, :4]), zero) is None


@pytest.mark.parametrize("seeds", [3, 5])
def test_t_intervals_cover_the_truth(seeds):
    draws = np.random.default_rng(seeds)
    # a seed moves both methods alike, which pairing takes out
    shared = draws.normal(0, 5, (4000, seeds))
    first, second = shared + draws.normal(0.7, 1, shared.shape), shared + draws.normal(0, 1, shared.shape)
    covered = {"mean": 0, "paired": 0}
    for a, b in zip(first, second, strict=True):
        low, high = mean_interval(a.tolist()).ends
        covered["mean"] += low < 0.7 < high
        low, high = paired_interval(by_seed(a), by_seed(b)).ends
        covered["paired"] += low < 0.7 < high
    assert {name: count / 4000 for name, count in covered.items()} == {"mean": COVERS(), "paired": COVERS()}


# over methods


def test_holm_is_as_in_the_paper():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )  # R: p.adjust(p, "holm")
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_a_false_discovery():
    draws = np.random.default_rng(0)
    reference = draws.normal(size=(3000, 1, 5))
    methods = draws.normal(size=(3000, 4, 5))
    p = stats.ttest_rel(methods, np.broadcast_to(reference, methods.shape), axis=2).pvalue
    false = [min(holm(tests)) < 0.05 for tests in p.tolist()]
    assert 0.02 < np.mean(false) <= 0.05
    assert np.mean(p.min(axis=1) < 0.05) > 0.1  # what it is for
    # the chance holds for those without an effect when another has one
    methods[:, 0] += 5
    p = stats.ttest_rel(methods, np.broadcast_to(reference, methods.shape), axis=2).pvalue
    assert np.mean([min(holm(tests)[1:]) < 0.05 for tests in p.tolist()]) <= 0.05


# over test images


@pytest.mark.parametrize(("right", "images"), [(0, 1), (1, 1), (17, 20), (500, 500), (0, 30), (512, 1797)])
def test_wilson_is_scipys(right, images):
    theirs = stats.binomtest(right, images).proportion_ci(0.9, method="wilson")
    assert wilson_interval(right, images, 0.9) == pytest.approx((theirs.low, theirs.high))


def test_wilson_refuses_what_is_no_share():
    for right, images in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(ValueError, match="is no share"):
            wilson_interval(right, images)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_wilson_covers_the_truth(share):
    right = np.random.default_rng(0).binomial(300, share, 4000)
    ends = {count: wilson_interval(count, 300) for count in set(right.tolist())}
    assert np.mean([ends[count][0] < share < ends[count][1] for count in right.tolist()]) == COVERS()


def test_bootstrap_is_scipys_with_and_without_groups():
    draws = np.random.default_rng(0)
    first, second = draws.random((2, 5, 400)) < [[[0.7]], [[0.6]]]
    difference = first.mean(0) - second.mean(0)
    theirs = stats.bootstrap((difference,), np.mean, method="percentile", rng=draws).confidence_interval
    assert bootstrap_interval(difference) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    group = draws.integers(0, 60, 400)
    sums, sizes = np.bincount(group, difference), np.bincount(group)
    theirs = stats.bootstrap(
        (sums, sizes),
        lambda sums, sizes, axis: sums.sum(axis) / sizes.sum(axis),
        paired=True,
        method="percentile",
        rng=draws,
    ).confidence_interval
    named = np.array([f"patient {number}" for number in group])
    assert bootstrap_interval(difference, named) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_bootstrap_by_group_covers_the_truth_where_single_images_do_not():
    draws = np.random.default_rng(1)
    covered = np.zeros((600, 2))
    for row in covered:
        group = np.repeat(np.arange(80), draws.choice([1, 4], 80))
        right = draws.random(len(group)) < draws.beta(0.3, 0.2, 80)[group]  # alike within a group
        ends = [bootstrap_interval(right, groups) for groups in (group, None)]
        row[:] = [low < 0.6 < high for low, high in ends]
    by_group, by_image = covered.mean(0)
    assert by_group == COVERS()
    assert by_image < 0.9


def test_bootstrap_of_nothing_to_draw_from():
    assert bootstrap_interval([1.0]) is None
    assert bootstrap_interval([1.0, 0.0, 1.0], [7, 7, 7]) is None
    assert bootstrap_interval([1.0] * 50) == (1.0, 1.0)
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_interval([1.0, float("nan")])
