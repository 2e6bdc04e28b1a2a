"""The same table on the terminal, in Markdown and in a notebook."""

import io
import re

import pandas as pd
import pytest
from made_bench import Page, made_up_results, made_up_row, made_up_rows, terminal

from ssl_zoo.bench.report import results_table, to_csv_table, to_latex, to_markdown
from ssl_zoo.bench.report.words import budget, points, reason, scaled, tuned


def test_terminal_table_marks_the_best_from_three_seeds_on():
    one, three = (terminal(made_up_results(made_up_rows(["dino", "byol"], seeds))) for seeds in (1, 3))
    best = re.compile(r"\x1b\[1m\s*6\d\.\d")
    assert not best.search(one)
    assert best.search(three)
    assert "one seed: too few seeds to rank (to add seeds" in one
    assert "At equal images dino is 7.1\N{PLUS-MINUS SIGN}" in three.replace(
        " \N{PLUS-MINUS SIGN} ", "\N{PLUS-MINUS SIGN}"
    )
    assert re.search(r"\x1b\[2m.*random", three)


def test_terminal_table_says_what_failed_and_repeats_the_notes():
    rows = made_up_rows(["dino"], 1)
    error = "Traceback (most recent call last):\n  File x\nRuntimeError: [red]out of memory[/red]"
    rows.append(made_up_row("by[b]ol", 0, None, status="failed", error=error))
    text = terminal(made_up_results(rows, notes=["images are stored as JPEG"]))
    assert "by[b]ol seed 0 failed: RuntimeError: [red]out of memory[/red]" in text
    assert "note: images are stored as JPEG" in text
    assert "A made-up bench" not in text
    assert (
        "dino, by[b]ol on made-up \N{MIDDLE DOT} resnet8 \N{MIDDLE DOT} 32 px \N{MIDDLE DOT} 3 epochs" in text
    )


def test_no_number_is_cut_in_a_narrow_terminal():
    text = terminal(made_up_results(made_up_rows(["dino", "byol"], 3)), width=80)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "12,800" in text


def test_without_labels_the_columns_are_those_that_need_none():
    measured = {"alignment": 0.41, "uniformity": -1.5}
    rows = [made_up_row(label, 0, None, **measured) for label in ("random", "dino")]
    assert to_markdown(made_up_results(rows)).split("\n")[2:6] == [
        "| label | feature std | RankMe | alignment | uniformity | verdict | images seen | seconds "
        "| images/s | status |",
        "| :--- | ---: | ---: | ---: | ---: | :--- | ---: | ---: | ---: | :--- |",
        "| dino | 0.043 | 41.2 | 0.410 | -1.50 | healthy | 12,800 | 80 | 160 | done |",
        "| random | 0.043 | 41.2 | 0.410 | -1.50 | - | 0 | 0 | - | done |",
    ]
    with_labels = to_markdown(made_up_results([*rows, made_up_row("byol", 0, 0.5)]))
    assert "k-NN top-1 %" in with_labels
    assert "alignment" not in with_labels


def test_fine_tuning_has_a_column_where_it_was_measured_and_fits_a_narrow_terminal():
    rows = made_up_rows(["dino", "byol"], 3)
    assert "tuned" not in to_markdown(made_up_results(rows))
    tuned = made_up_results([row | {"finetune_top1": 0.7} for row in rows])
    assert "| verdict | tuned top-1 % |" in to_markdown(tuned)
    assert terminal(tuned, width=80).count("70.0\N{PLUS-MINUS SIGN}0.0") == 3


def test_markdown_is_the_same_table():
    rows = [
        made_up_row("random", 0, 0.3, knn_k=20),
        made_up_row("dino|2", 0, 0.6, map_at_r=None),
        made_up_row("<b>", 0, None, status="failed", error="OSError: gone", collapse_verdict=None),
    ]
    assert to_markdown(made_up_results(rows, notes=["a *small* set"])) == (
        "dino\\|2, &lt;b&gt; on made-up \N{MIDDLE DOT} resnet8 \N{MIDDLE DOT} 32 px \N{MIDDLE DOT} 3 epochs "
        "\N{MIDDLE DOT} each method's own views \N{MIDDLE DOT} 1 seed "
        "\N{MIDDLE DOT} defaults, 0 tuning trials\n"
        "\n"
        "| label | k-NN top-1 % | over random | linear top-1 % | mAP@R % | RankMe | verdict | images seen "
        "| seconds | images/s | status |\n"
        "| :--- | ---: | ---: | ---: | ---: | ---: | :--- | ---: | ---: | ---: | :--- |\n"
        "| dino\\|2 | 60.0 | +30.0 | 63.0 | - | 41.2 | healthy | 12,800 | 20 | 640 | done |\n"
        "| &lt;b&gt; | - | - | - | - | - | - | 12,800 | 20 | 640 | failed |\n"
        "| random | 30.0 | +0.0 | 33.0 | 15.0 | 41.2 | - | 0 | 0 | - | done |\n"
        "\n"
        "- only dino\\|2 has a score: there is nothing to rank\n"
        "- &lt;b&gt; seed 0 failed: OSError: gone\n"
        "- note: a \\*small\\* set\n"
    )


def test_markdown_bolds_the_best_with_its_interval():
    text = to_markdown(made_up_results(made_up_rows(["dino", "byol"], 3)))
    assert re.search(r"\| dino \| \*\*6\d\.\d \N{PLUS-MINUS SIGN} \d\.\d\*\* \|", text)
    assert text.count("**") == 2  # of the primary metric alone: no other was tested


def test_no_reference_is_the_best_and_an_undecided_one_neither():
    rows = made_up_rows(["dino", "byol"], 3)
    above = [made_up_row("supervised", seed, 0.9, method=None) for seed in range(3)]
    assert re.findall(r"\| (\w+) \| \*\*", to_markdown(made_up_results([*rows, *above]))) == ["dino"]
    close = [row | {"knn_top1": 0.55 + 0.01 * (row["seed"] % 2)} for row in rows if row["label"] != "random"]
    assert "**" not in to_markdown(made_up_results(close))


def test_from_three_seeds_on_differences_to_the_reference_are_columns():
    two, three = (to_markdown(made_up_results(made_up_rows(["dino", "byol", "moco"], n))) for n in (2, 3))
    assert "Holm" not in two
    lines = [line.split(" | ")[2:5] for line in three.split("\n")[2:8]]
    assert lines == [
        ["over random", "over dino", "p (Holm)"],
        ["---:", "---:", "---:"],
        ["+31.3", "-", "-"],
        ["+24.2", "-7.1 \N{PLUS-MINUS SIGN} 1.5", ".0024"],
        ["+22.9", "-8.4 \N{PLUS-MINUS SIGN} 1.0", ".0017"],
        ["+0.0", "-", "-"],
    ]
    rows = [*made_up_rows(["dino", "byol"], 3), made_up_row("moco", 0, 0.5)]
    named = to_markdown(made_up_results(rows, reference="byol"))
    assert "| over byol | p (Holm) |" in named
    assert re.search(r"\| moco \| 50\.0 \| \+\d+\.\d \| - \| - \|", named)


def test_csv_has_the_same_cells_ready_for_a_spreadsheet():
    results = made_up_results(made_up_rows(["dino", "byol"], 3))
    table = pd.read_csv(io.StringIO(to_csv_table(results)), index_col="label")
    assert list(table.columns[:6]) == [
        *("k-NN top-1 %", "k-NN top-1 % \N{PLUS-MINUS SIGN}", "over random"),
        *("over dino", "over dino \N{PLUS-MINUS SIGN}", "p (Holm)"),
    ]
    assert table.loc["byol"].tolist()[:6] == [55.0, 0.9, 24.2, -7.1, 1.5, 0.0024]
    assert table.loc["dino", "over dino":"p (Holm)"].isna().all()
    assert table["images seen"].tolist() == [12_800, 12_800, 0]
    assert table["verdict"].tolist()[:2] == ["healthy", "healthy"]
    one = to_csv_table(made_up_results([made_up_row("a,b", 0, 0.5)])).split("\n")
    assert one[0].startswith("label,k-NN top-1 %,over random,linear top-1 %,")
    assert one[1].startswith('"a,b",50.0,,53.0,')


def test_latex_has_the_same_cells_and_needs_no_package():
    rows = [*made_up_rows(["dino", "byol"], 3), made_up_row(r"a_b\{50%}", 0, 0.5)]
    text = to_latex(made_up_results(rows, notes=["two\nlines"]))
    lines = text.split("\n")
    comments, body = [line for line in lines if line[:1] == "%"], [line for line in lines if line[:1] != "%"]
    assert [line for line in comments if "At equal images dino is" in line]
    assert comments[-1] == "% note: two lines"
    assert body[0] == "\\begin{tabular}{lrrrrrrrlrrrl}"
    assert body[-2:] == ["\\end{tabular}", ""]
    header, *cells = (line.removesuffix(" \\\\").split(" & ") for line in body if line.endswith(" \\\\"))
    assert len(cells) == 4
    assert {len(line) for line in [header, *cells]} == {13}
    assert header[:5] == ["label", "k-NN top-1 \\%", "over random", "over dino", "p (Holm)"]
    assert cells[1][3:5] == ["$-$7.1 $\\pm$ 1.5", ".0024"]
    assert cells[2][0] == "a\\_b\\textbackslash{}\\{50\\%\\}"
    assert text.count("\\hline") == 3
    best = to_latex(made_up_results(made_up_rows(["dino", "byol"], 3)))
    assert "dino & \\textbf{62.2 $\\pm$ 0.6} & +31.3" in best


def test_notebook_table_escapes_and_names_the_finding():
    page = Page(results_table(made_up_results(made_up_rows(["dino", "<i>x"], 3))))
    assert "i" not in [tag for tag, _ in page.tags]
    assert "<i>x" in page.text
    assert "points above <i>x (p" in page.text


def test_words():
    assert budget({"epochs": 1}) == "1 epoch"
    assert budget({"flops": 2.5e15}) == "2.5 PFLOP"
    assert scaled(2.5e15, "FLOP") == "2.5 PFLOP"
    assert scaled(3 * 2**28, "B", base=1024) == "768 MiB"
    assert scaled(0, "B") == "0 B"
    assert reason(None, "stopped") == "run the same command again to finish it"


def test_options_that_are_not_defaults_are_named():
    bench = {"budget": {"epochs": 1}, "given": {"dino-sharp": ["centering", "optim"]}}
    assert tuned(bench) == "defaults but for dino-sharp (centering, optim), 0 tuning trials"
    assert tuned({"budget": {"epochs": 1}}) == "defaults, 0 tuning trials"
    assert tuned(bench | {"tuning": {"trials": 4}}) == "4 tuning trials per method"


@pytest.mark.parametrize(
    ("value", "text"), [(-0.04, "+0.0"), (0.0, "+0.0"), (-0.05001, "-0.1"), (2.25, "+2.2")]
)
def test_points_that_round_to_nothing_have_no_minus(value: float, text: str):
    assert points(value) == text
