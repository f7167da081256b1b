"""`fovea demo`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from app.cli.failure import Failure


@click.command()
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Where it makes a directory for everything.",
)
def demo(home: Path) -> int:
    """Show the whole loop on handwritten digits, in a home of its own."""
    if importlib.util.find_spec("sklearn") is None:
        raise Failure("The demo's digits come with scikit-learn, which is not here.", hint="pip install 'fovea[demo]'")
    from app.demo import run_demo

    return run_demo(home)
