"""Take the pictures of docs/images/ from reports: their head, and the curve of accuracy against cost.

python docs/screenshots.py RUN
python docs/screenshots.py RUN curve
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
CURVE = "document.querySelector('section[aria-labelledby=cost]').getBoundingClientRect()"
LIGHT_AND_DARK = {"width": 960, "height": 1240}
PHONE = {"width": 390, "height": 844}


def save(png: bytes, name: str) -> None:
    """A picture of few colours, which is a small file."""
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
            DOCS / "images" / name, optimize=True
        )


def head(run: Path) -> None:
    """The top of a report: light, dark and on a phone."""
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


def curve(run: Path) -> None:
    """The chart of accuracy against cost, light and dark."""
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
        page.resize(width=960, height=3000)
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            page.open((run / "report.html").resolve())
            page.until(DRAWN)
            top, height = page.run(f"(({{y, height}}) => [y, height])({CURVE})")
            save(page.picture(x=0, y=top - 56, width=960, height=height + 56), f"curve-{scheme}.png")


if __name__ == "__main__":
    {"head": head, "curve": curve}[sys.argv[2] if len(sys.argv) > 2 else "head"](Path(sys.argv[1]))
