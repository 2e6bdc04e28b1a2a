"""Installed packages that provide methods, made up for the tests."""

from pathlib import Path


def install(folder: Path, name: str, entry_points: dict[str, str], files: dict[str, str]) -> None:
    """An installed distribution `name`, as pip leaves it: metadata, entry points, modules by path."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: Of {name}.\n"
    )
    lines = [f"{method} = {target}" for method, target in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[ssl_zoo.methods]", *lines]) + "\n")
    for path, source in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(source)
