"""The same table on the terminal, in Markdown and in a notebook."""

import re

from made_bench import Page, made_up_results, made_up_row, made_up_rows, terminal

from ssl_zoo.bench.report import results_table, to_markdown
from ssl_zoo.bench.report.words import budget, reason, scaled


def test_terminal_table_marks_the_best_from_three_seeds_on():
    one, three = (terminal(made_up_results(made_up_rows(["dino", "byol"], seeds))) for seeds in (1, 3))
    best = re.compile(r"\x1b\[1m\s*6\d\.\d")
    assert not best.search(one)
    assert best.search(three)
    assert "one seed: too few seeds to rank (use --seeds 3)" in one
    assert "the leader is dino, ahead of byol" in three
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
        "\N{MIDDLE DOT} each method's own views \N{MIDDLE DOT} 1 seed\n"
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
    assert text.count("**") == 6  # k-NN, linear, mAP@R


def test_notebook_table_escapes_and_names_the_finding():
    page = Page(results_table(made_up_results(made_up_rows(["dino", "<i>x"], 3))))
    assert "i" not in [tag for tag, _ in page.tags]
    assert "<i>x" in page.text
    assert "the leader is dino, ahead of <i>x" in page.text


def test_words():
    assert budget({"epochs": 1}) == "1 epoch"
    assert budget({"flops": 2.5e15}) == "2.5e+15 flops"
    assert scaled(2.5e15, "FLOP") == "2.5 PFLOP"
    assert scaled(3 * 2**28, "B", base=1024) == "768 MiB"
    assert scaled(0, "B") == "0 B"
    assert reason(None, "stopped") == "run the same command again to finish it"
