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
    help="Directory in which the demo creates its own.",
)
def demo(home: Path) -> int:
    """Train on handwritten digits and classify others, in a separate home."""
    check_digits()
    from app.demo import run_demo

    return run_demo(home)


def check_digits() -> None:
    """Raises Failure where the digits are not installed."""
    if importlib.util.find_spec("sklearn") is None:
        raise Failure(
            "This needs the digits of scikit-learn, which is not installed.", hint="pip install 'fovea[demo]'"
        )
