"""README's tables are rendered, not believed; its blocks and links are tested with those of all pages."""

from benchmarks.publish import README, render


def test_tables_are_rendered_from_the_results_files():
    text = README.read_text()
    assert text == render(text)
