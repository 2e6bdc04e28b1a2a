"""Take the pictures of docs/images/ from the report of a bench: docs/reading-the-table.md shows them.

python docs/screenshots.py RUN
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from made_browser import browser  # noqa: E402

DRAWN = "document.querySelectorAll('.plot-container').length >= 2"
LIGHT_AND_DARK = {"width": 960, "height": 1240}
PHONE = {"width": 390, "height": 844}


def save(png: bytes, name: str) -> None:
    """A picture of few colours, which is a small file."""
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
            DOCS / "images" / name, optimize=True
        )


def main(run: Path) -> None:
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
        for name, scheme, size, scale in (
            ("report-light.png", "light", LIGHT_AND_DARK, 1),
            ("report-dark.png", "dark", LIGHT_AND_DARK, 1),
            ("report-phone.png", "light", PHONE, 2),
        ):
            page.resize(**size, scale=scale)
            page.prefer(scheme)
            page.open((run / "report.html").resolve())
            page.until(DRAWN)
            save(page.picture(x=0, y=0, **size), name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
