"""`fovea demo`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--home", type=click.Path(path_type=Path), default=Path("demo"), help="Where it puts everything.")
def demo(home: Path) -> int:
    """Show the whole loop on handwritten digits, in a home of its own."""
    from app.demo import run_demo

    return run_demo(home)
