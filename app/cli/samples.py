"""`fovea samples`."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.demo import check_digits


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def samples(directory: Path) -> None:
    """Write sample images: handwritten digits, a directory per category.

    DIRECTORY gets `digits/0` to `digits/9` to train on, and `new/0.png` to `new/9.png` to ask about: digits that are
    not among the others.
    """
    check_digits()
    from app.demo.digits import write_samples

    count = write_samples(directory)
    click.echo(f"{count:,} images in {directory / 'digits'}, and one more of each digit in {directory / 'new'}.")
