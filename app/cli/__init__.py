"""`fovea ...`. Commands are imported when they are called, so that `fovea --help` is instant."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

EXIT_OK = 0
EXIT_PROBLEM = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_JOB_FAILED = 4
EXIT_JOB_CANCELLED = 5
EXIT_INTERRUPTED = 130

# Per command: its location, and its line in `fovea --help`. A test compares the lines with the commands' own.
COMMANDS = {
    "up": ("app.cli.up:up", "Run all of Fovea on this machine: Redis, the API and a worker."),
    "serve": ("app.cli.serve:serve", "Run the API alone."),
    "worker": ("app.cli.worker:worker", "Run one worker alone."),
    "demo": ("app.cli.demo:demo", "Train on handwritten digits and classify others, in a separate home."),
    "samples": ("app.cli.samples:samples", "Write sample images: handwritten digits, a directory per category."),
    "train": ("app.cli.train:train", "Train a model on a directory or archive of images."),
    "evaluate": ("app.cli.evaluate:evaluate", "Measure a model on a dataset, without training."),
    "classify": ("app.cli.classify:classify", "Classify images with a model."),
    "detect": ("app.cli.detect:detect", "Detect the objects in images with a model."),
    "segment": ("app.cli.segment:segment", "Segment images with a model."),
    "datasets": ("app.cli.datasets:datasets", "List, upload, preview and delete datasets."),
    "jobs": ("app.cli.jobs:jobs", "List, watch, stop and retry jobs."),
    "models": ("app.cli.models:models", "List, promote, download and upload models."),
    "architectures": ("app.cli.catalog:architectures", "List the architectures, or show one."),
    "system": ("app.cli.catalog:system", "Show versions, devices, memory and queues of the server."),
}

EPILOG = """\b
Exit codes: 0 success; 1 the server refused, or a local error;
2 wrong usage; 3 no server answers; 4 the job failed; 5 the job was cancelled;
130 Ctrl-C."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called, not when the group is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All commands, in the order of a first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the lines of the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> Any:
        """Runs a command line and exits with a code that `fovea --help` explains."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("Interrupted.", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:  # `fovea jobs list | head`: the reader has ended
            sys.stderr.close()
            sys.exit(EXIT_OK)
        sys.exit(code if isinstance(code, int) else EXIT_OK)


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fovea")
@click.option("--url", metavar="URL", help="Server to talk to, for every command that takes --url.")
def cli(url: str | None) -> None:
    """Fovea: images in, labels out; a zip of photos in, a live fine-tuned model out.

    Settings come from FOVEA_... in the environment, from the file .env, or from flags of the same name:
    FOVEA_HOME is --home. Commands that talk to a server find it by --url, FOVEA_URL, or FOVEA_HOST and FOVEA_PORT.
    """


def main() -> None:
    """The console script."""
    cli(prog_name="fovea")
