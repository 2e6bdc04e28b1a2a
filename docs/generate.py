"""Write docs/cli.md from the command line's own help: python docs/generate.py"""

from pathlib import Path

from ssl_zoo.cli import app

CLI = Path(__file__).with_name("cli.md")


def render() -> str:
    """The page: every command with its flags and their help."""
    return "<!-- written by docs/generate.py -->\n\n" + app.generate_docs().strip() + "\n"


if __name__ == "__main__":
    CLI.write_text(render())
