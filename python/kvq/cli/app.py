# SPDX-License-Identifier: Apache-2.0
"""The group of commands, and what becomes of errors: one sentence and exit code 2 for what a user can change, 1 for
what failed on the way, 130 after Ctrl-C; a traceback with --debug only."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from kvq.cli.chat import chat
from kvq.cli.environment import env
from kvq.cli.evaluation import evaluate
from kvq.cli.inspection import inspect
from kvq.cli.preparation import prepare
from kvq.cli.sweeping import sweep
from kvq.cli.tune_kernels import kernel, model
from kvq.cli.tune_report import report
from kvq.cli.tune_splits import tune_splits
from kvq.cli.tuning import tune
from kvq.errors import Error, InternalError

INTERRUPTED = 130


class _Commands(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def commands() -> None:
    """Quantized KV caches for language models: measure them, talk through them.

    A CACHE is a short text: a preset (kivi-2, kivi-4, kvq-8, kvq-4, kvq-k4v2, kvq-3, kvq-2), a format written out such as
    k4c32-v4t32/w128,sliding, or one of transformers' own caches (dynamic, quanto-4, ...).

    Every command takes --debug, which shows where an error came from.
    """


for command in (kernel, model, tune_splits, sweep, report):
    tune.add_command(command)
for command in (evaluate, chat, env, prepare, *inspect.commands.values(), *tune.commands.values()):
    command.params.append(
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")
    )
for command in (evaluate, chat, env, prepare, inspect, tune):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code. `arguments`: None for those of this process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries would run through what we print
    if arguments is None and given[:1] == ["eval"] and not {"-h", "--help"} & set(given):
        from kvq.evaluate import allocator

        allocator.tune("kvq", given)  # does not come back where the process starts again
    try:
        code = commands.main(given, prog_name="kvq", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("kvq: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        sys.stderr.close()
        return 1
    except Exception as error:
        return _explain(error, "--debug" in given)


def inspect_main() -> int:
    """`kvq-inspect kernel ...` is `kvq inspect kernel ...`."""
    return main(["inspect", *sys.argv[1:]])


def _explain(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, Error) and not isinstance(error, InternalError):
        click.echo(f"kvq: {error}", err=True)
        return 2
    if isinstance(error, InternalError):
        click.echo(f"kvq: {error}", err=True)
    else:
        click.echo(
            f"kvq: {type(error).__name__}: {error}; please report this with the output of `kvq env`, and with --debug "
            "for where it happened",
            err=True,
        )
    return 1
