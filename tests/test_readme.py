"""Tables of results are rendered, not believed; blocks and links are tested with those of all pages."""

import pytest

from benchmarks.publish import PAGES, RESULTS, render


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_rendered_from_the_results_files(page):
    text = page.read_text()
    assert "<!-- table: " in text
    assert text == render(text)


def test_another_result_makes_another_table(monkeypatch, tmp_path):
    page = PAGES[1].read_text()
    for file in RESULTS.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text().replace('"linear_top1": 0.', '"linear_top1": 0.1'))
    monkeypatch.setattr("benchmarks.publish.RESULTS", tmp_path)
    assert render(page) != page
