"""The command `coord`: one file per subcommand, imported only when it is called, since the command must start fast."""

from __future__ import annotations

import importlib
import io
import os
import sys

import click

from coord import __version__
from coord.errors import OWN_ERROR, USAGE, CoordError

INTERRUPTED = 130
COMMANDS = ("run", "worker", "shutdown", "status", "jobs", "agents", "doctor")


class _Commands(click.Group):
    """Finds a subcommand in the file of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"coord.cli.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101  # our own invariant
        return command


@click.command(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Examples:
  coord run --job-id train-42 -- python train.py     on each host
  coord shutdown --job-id train-42                   from anywhere: stops it on all hosts
  coord status --job-id train-42 --json              what runs, what failed first, what is gone
""",
)
@click.version_option(__version__, prog_name="coord")
@click.pass_context
def group(ctx: click.Context) -> int:
    """Stop distributed jobs on all their hosts, and prove that everything is gone."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
    return USAGE


def main() -> None:
    """Run the command; every expected failure is one line on stderr and a documented exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that a terminal can't show costs no verdict
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        code = _unwritten(error) or code
    # nothing is left to be tidied up, and taking the interpreter down takes longer than a whole shutdown
    os._exit(code)


def run(args: list[str]) -> int:
    """Run the command with these arguments; gives its exit code."""
    try:
        code = group.main(args=args, prog_name="coord", standalone_mode=False)
    except CoordError as error:
        _complain(str(error))
        return error.exit_code
    except click.UsageError as error:
        _complain(f"{error.format_message().rstrip('.')}. See {_path(error)} --help")
        return USAGE
    except click.ClickException as error:
        _complain(error.format_message())
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        return _unwritten(error)
    except Exception as error:
        if os.environ.get("COORD_DEBUG"):
            raise
        _complain(f"{type(error).__name__}: {error}. This is a defect of coord; COORD_DEBUG=1 shows where")
        return OWN_ERROR
    return code if isinstance(code, int) else 0


def _complain(line: str) -> None:
    click.echo(f"coord: {' '.join(line.split())}", err=True)


def _unwritten(error: OSError) -> int:
    """Our output did not arrive: say so, unless nobody reads it any more; what is left of it is given up."""
    if not isinstance(error, BrokenPipeError):
        _complain(f"the output could not be written: {error.strerror or error}")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return OWN_ERROR


def _path(error: click.UsageError) -> str:
    return error.ctx.command_path if error.ctx else "coord"
