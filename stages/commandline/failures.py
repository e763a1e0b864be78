"""Exceptions of jobs → one line on standard error and an exit status."""

import sys
from typing import Any

import click

from rela.distributed.ranks import current_ranks
from rela.errors import RelaError, failure_of
from rela.pipeline.errors import PipelineError
from rela.pipeline.processes import AskedToMakeRoom, making_room
from rela.stages.commandline import everywhere
from rela.stages.commandline.options import RequestCommand, say

_TRY_AGAIN, _INTERRUPTED = 75, 130


def _which_process() -> str:
    ranks = current_ranks()
    return f" (process {ranks.rank + 1} of {ranks.world_size})" if ranks.world_size > 1 else ""


class SubCommands(click.Group):
    """Commands under a word of their own, such as `cache`."""

    command_class = RequestCommand

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params += everywhere.options()


class Commands(click.Group):
    """Lists commands in the order of the flow; turns exceptions into one line and an exit status."""

    command_class = RequestCommand
    group_class = SubCommands

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params[:0] = everywhere.options(of_program=True)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which the commands were defined."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As of the base class; `help` is not a command."""
        if args[0] == "help":
            raise click.UsageError("no command help; write rela --help, or rela train --help", ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **options: Any) -> Any:
        """Also without a traceback where not even the help can be printed, such as on a full disk."""
        try:
            return super().main(*args, **options)
        except OSError as error:
            failure = failure_of(error)
            assert failure is not None, "every OSError has a message"
            say(f"rela: {failure[0]}")
            sys.exit(failure[1])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; `--debug` shows the traceback of an error."""
        try:
            with making_room():
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of a pipe has seen enough: click ends quietly
        except (RelaError, PipelineError, OSError, MemoryError, RuntimeError) as error:
            failure = failure_of(error)
            if ctx.params.get("debug") or failure is None:
                raise
            say(f"rela{_which_process()}: {failure[0]}")
            ctx.exit(failure[1])
        except KeyboardInterrupt as stop:
            done = f": {stop}" if str(stop) else "; run the same command again to resume"
            say(f"rela: interrupted{done}")
            ctx.exit(_INTERRUPTED)
        except AskedToMakeRoom as signal:
            say(f"rela: {signal}; run the same command again to resume")
            ctx.exit(_TRY_AGAIN)
