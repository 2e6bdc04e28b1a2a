"""Print the lowest dependencies that pyproject.toml allows, as requirements for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for dependency in project["dependencies"]:
    pinned, bounds = re.subn(r"^([\w-]+)>=([\w.]+)", r"\1==\2", dependency)
    if not bounds:
        raise SystemExit(f"{dependency} has no lower bound; write NAME>=VERSION")
    print(pinned)
