"""`fovea models ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from pydantic import ValidationError

from app.cli.connection import connected, url_option
from app.cli.failure import UsageFailure
from app.cli.output import json_option, metrics, print_facts, print_json, print_table, size
from app.cli.references import reference, version_reference
from app.cli.uploading import transfer_bar
from app.schemas.models import Model, ModelVersion, UploadedManifest
from models.manifest import Manifest


@click.group()
def models() -> None:
    """List, promote, download and upload models."""


@models.command("list")
@json_option
@url_option
def list_(as_json: bool, url: str | None) -> None:
    """List the registered models by name."""
    with connected(url) as client:
        found = list(client.models.list())
    if as_json:
        print_json(found)
        return
    rows = (
        (
            model.name,
            model.latest.version,
            _aliases(model),
            model.latest.architecture,
            len(model.latest.categories),
            metrics({name: value for name, value in model.latest.metrics.items() if name == "val/top1"}) or "-",
            size(model.latest.size_bytes),
            model.latest.created_at,
        )
        for model in found
    )
    columns = ["NAME", ">NEWEST", "ALIASES", "ARCHITECTURE", ">CATEGORIES", "METRICS", ">SIZE", "MADE"]
    print_table(columns, rows, empty="No models yet: `fovea train DIR_OR_ZIP --model resnet18` creates one.")


@models.command()
@click.argument("model", type=reference, metavar="NAME[/VERSION]")
@json_option
@url_option
def show(model: tuple[str, int | None], as_json: bool, url: str | None) -> None:
    """Show a model's versions and aliases, or with NAME/VERSION one version's manifest."""
    name, version = model
    with connected(url) as client:
        if version is None:
            found = client.models.get(name)
            print_json(found) if as_json else _print_model(found)
        else:
            details = client.models.version(name, version)
            print_json(details) if as_json else _print_version(details)


@models.command()
@click.argument("model", type=version_reference, metavar="NAME/VERSION")
@click.option("--alias", default="production", show_default=True, help="`production` is what the bare name means.")
@json_option
@url_option
def promote(model: tuple[str, int], alias: str, as_json: bool, url: str | None) -> None:
    """Point an alias at NAME/VERSION; it is live at once."""
    name, version = model
    with connected(url) as client:
        moved = client.models.set_alias(name, alias, version)
    if as_json:
        print_json(moved)
    else:
        before = f" (was {moved.previous})" if moved.previous is not None else ""
        click.echo(f"{moved.model}@{moved.alias} is version {moved.version}{before}")


@models.command()
@click.argument("model", type=version_reference, metavar="NAME/VERSION")
@click.option("--format", type=click.Choice(["safetensors", "pth"]), default="safetensors", show_default=True)
@click.option("--out", "-o", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@url_option
def download(
    model: tuple[str, int],
    format: Literal["safetensors", "pth"],  # noqa: A002 (the API's word)
    out: Path | None,
    url: str | None,
) -> None:
    """Write the state_dict of NAME/VERSION to a file."""
    name, version = model
    target = out or Path(f"{name}-{version}.{format}")
    with connected(url) as client, transfer_bar(f"Downloading {name}/{version}") as advance:
        client.models.download(name, version, target, format=format, progress=advance)
    click.echo(target)


@models.command()
@click.argument("name")
@click.argument("state_dict", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file with `architecture`, `categories` and more: instead of the two options below.",
)
@click.option("--architecture", help="Catalogue name.")
@click.option("--categories", help="Labels in the order of the network's outputs: ant,bee")
@json_option
@url_option
def upload(
    name: str,
    state_dict: Path,
    manifest: Path | None,
    architecture: str | None,
    categories: str | None,
    as_json: bool,
    url: str | None,
) -> None:
    """Publish weights that were trained elsewhere as the next version of NAME.

    STATE_DICT is a .safetensors file, or a .pth with tensors only.
    """
    said = _manifest(manifest, architecture, categories)
    with connected(url) as client, transfer_bar(f"Uploading {state_dict.name}") as advance:
        published = client.models.upload(name, state_dict, said, progress=advance)
    print_json(published) if as_json else click.echo(published.reference)


@models.command()
@click.argument("model", type=version_reference, metavar="NAME/VERSION")
@url_option
def delete(model: tuple[str, int], url: str | None) -> None:
    """Delete NAME/VERSION, unless an alias points at it."""
    name, version = model
    with connected(url) as client:
        client.models.delete(name, version)
    click.echo(f"Deleted {name}/{version}.", err=True)


def _manifest(file: Path | None, architecture: str | None, categories: str | None) -> UploadedManifest:
    if file is not None:
        try:
            return UploadedManifest.model_validate_json(file.read_bytes())
        except ValidationError as error:
            problems = tuple(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
            raise UsageFailure(f"{file} is not a valid manifest.", details=problems) from error
    if not architecture or not categories:
        raise click.UsageError("Give --architecture and --categories, or a --manifest file.")
    return UploadedManifest(architecture=architecture, categories=tuple(part.strip() for part in categories.split(",")))


def _aliases(model: Model) -> str:
    return ", ".join(f"{alias} {version}" for alias, version in sorted(model.aliases.items())) or "-"


def _print_model(model: Model) -> None:
    versions = ", ".join(map(str, model.versions))
    print_facts([("Model", model.name), ("Versions", versions), ("Aliases", _aliases(model)), ("", "")])
    _print_manifest(model.latest)


def _print_version(details: ModelVersion) -> None:
    _print_manifest(details.manifest)
    print_facts([("Aliases", ", ".join(details.aliases) or "-"), ("Report", "\n".join(details.report) or "-")])


def _print_manifest(manifest: Manifest) -> None:
    dataset, preset = manifest.dataset, manifest.preset
    print_facts(
        [
            ("Version", manifest.reference),
            ("Made", f"{manifest.created_at.astimezone():%Y-%m-%d %H:%M:%S}, {manifest.origin}"),
            ("Architecture", f"{manifest.architecture}, {manifest.parameters:,} parameters"),
            ("Input", str(preset)),
            ("Categories", ", ".join(manifest.categories)),
            ("Metrics", metrics(manifest.metrics) or None),
            ("Dataset", f"{dataset.name}/{dataset.version}" if dataset else None),
            ("From", manifest.base),
            ("Strategy", manifest.strategy),
            ("Job", manifest.job_id),
            ("Device", manifest.device),
            ("Size", size(manifest.size_bytes)),
            ("SHA-256", manifest.sha256),
            ("Description", manifest.description),
        ]
    )
