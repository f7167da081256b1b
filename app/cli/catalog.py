"""`fovea architectures` and `fovea system`."""

from __future__ import annotations

import click

from app.cli.connection import connected, url_option
from app.cli.output import json_option, print_facts, print_json, print_table, size
from app.schemas.architectures import ArchitectureDetails
from app.schemas.system import System


@click.command()
@click.argument("name", required=False)
@json_option
@url_option
def architectures(name: str | None, as_json: bool, url: str | None) -> None:
    """List the architectures, or show one."""
    with connected(url) as client:
        if name is not None:
            details = client.architectures.get(name)
            print_json(details) if as_json else _show(details)
            return
        found = list(client.architectures.list())
    if as_json:
        print_json(found)
        return
    rows = (
        (
            entry.name,
            entry.family,
            f"{entry.parameters / 1e6:.1f} M",
            f"{entry.preset.image_size_px} px",
            " ".join(f"{weights.name}{' (cached)' if weights.is_cached else ''}" for weights in entry.weights) or "-",
        )
        for entry in found
    )
    print_table(["NAME", "FAMILY", ">PARAMETERS", ">INPUT", "PRETRAINED WEIGHTS"], rows, empty="No architectures.")


@click.command()
@json_option
@url_option
def system(as_json: bool, url: str | None) -> None:
    """Show versions, devices, memory and queues of the server."""
    with connected(url) as client:
        state = client.system()
    if as_json:
        print_json(state)
    else:
        _print_system(state)


def _show(details: ArchitectureDetails) -> None:
    preset = details.preset
    print_facts(
        [
            ("Architecture", details.name),
            ("Tasks", ", ".join(details.tasks)),
            ("Parameters", f"{details.parameters:,}"),
            ("Input", str(preset)),
            ("Smallest image", f"{details.min_size_px} px"),
            *((option.name.capitalize(), ", ".join(option.choices)) for option in details.options),
        ]
    )
    click.echo()
    weights = (
        (entry.name, "yes" if entry.is_default else "", entry.is_cached, size(entry.size_bytes), entry.file_name)
        for entry in details.weights
    )
    print_table(["WEIGHTS", "DEFAULT", "CACHED", ">SIZE", "FILE"], weights, empty="There are no pretrained weights.")
    click.echo()
    layers = ((layer.name, layer.type, f"{layer.parameters:,}") for layer in details.layers)
    print_table(["LAYER", "TYPE", ">PARAMETERS"], layers, empty="No layers.")


def _print_system(state: System) -> None:
    devices = (
        f"{device.name} ({device.description}"
        + (f", {size(device.memory_free_bytes)} free" if device.memory_free_bytes is not None else "")
        + ")"
        for device in state.devices
    )
    memory, engine = state.memory, state.engine
    print_facts(
        [
            ("Fovea", state.version),
            ("Libraries", ", ".join(f"{name} {version}" for name, version in state.libraries.items())),
            ("Running since", state.started_at),
            ("Devices", "\n".join(devices)),
            ("Memory", f"{size(memory.available_bytes or 0)} free of {size(memory.total_bytes)}"),
            ("This process", size(memory.process_bytes) if memory.process_bytes is not None else None),
            ("Disk", f"{size(state.disk.free_bytes)} free of {size(state.disk.total_bytes)}"),
            ("Jobs waiting", "unknown: Redis is unreachable" if state.queue.depth is None else state.queue.depth),
            ("Images pending", f"{engine.pending_images} of {engine.max_pending_images}"),
        ]
    )
    click.echo()
    loaded = (
        (model.reference, model.architecture, model.device, size(model.size_bytes), model.last_used_at)
        for model in engine.loaded_models
    )
    columns = ["LOADED MODEL", "ARCHITECTURE", "DEVICE", ">SIZE", "LAST USED"]
    print_table(columns, loaded, empty="No model is loaded.")
