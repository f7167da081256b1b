"""`fovea ...`. This module stays light, and commands are imported when they are called: `fovea --help` is instant."""

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

# Command: where it is, and its line in `fovea --help`. A test holds the lines equal to the commands' own.
COMMANDS = {
    "up": ("app.cli.up:up", "Run all of Fovea on this machine: Redis, the API and a worker."),
    "serve": ("app.cli.serve:serve", "Run the API alone."),
    "worker": ("app.cli.worker:worker", "Run one worker alone."),
    "demo": ("app.cli.demo:demo", "Show the whole loop on handwritten digits, in a home of its own."),
    "train": ("app.cli.train:train", "Make a model of a directory or archive of pictures."),
    "evaluate": ("app.cli.evaluate:evaluate", "Measure a model on a dataset, without training."),
    "classify": ("app.cli.classify:classify", "Ask a model what is on pictures."),
    "detect": ("app.cli.detect:detect", "Ask a model for the objects on pictures."),
    "segment": ("app.cli.segment:segment", "Ask a model what every pixel of pictures shows."),
    "datasets": ("app.cli.datasets:datasets", "List, upload, look at and delete datasets."),
    "jobs": ("app.cli.jobs:jobs", "List, watch, stop and repeat jobs."),
    "models": ("app.cli.models:models", "List, promote, download and upload models."),
    "architectures": ("app.cli.catalog:architectures", "List what can be trained, or show one."),
    "system": ("app.cli.catalog:system", "Show versions, devices, memory and queues of the server."),
}

EPILOG = """\b
Exit codes: 0 all is well; 1 the server said no, or it cannot be done here;
2 wrong usage; 3 no server answers; 4 the job failed; 5 the job was cancelled;
130 Ctrl-C."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called, not when the group is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All commands, in the order people meet them."""
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
        """Writes the commands' lines without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> Any:
        """Runs a command line and ends the process with the exit code that `fovea --help` tells."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("Interrupted.", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:  # `fovea jobs list | head`: nobody reads on
            sys.stderr.close()
            sys.exit(EXIT_OK)
        sys.exit(code if isinstance(code, int) else EXIT_OK)


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fovea")
def cli() -> None:
    """Fovea: images in, labels out; a zip of photos in, a live fine-tuned model out.

    Settings come from FOVEA_... in the environment, from the file .env, or from flags of the same name:
    FOVEA_HOME is --home. Commands that talk to a server find it by --url, FOVEA_URL, or FOVEA_HOST and FOVEA_PORT.
    """


def main() -> None:
    """The console script."""
    cli(prog_name="fovea")
