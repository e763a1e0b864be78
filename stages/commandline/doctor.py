"""`rela doctor`: can it work here?"""

import click

from rela.stages.commandline.options import json_option, print_result

_NOT_USABLE = 1


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, /, as_json: bool) -> None:
    """Check what is installed and whether it runs, and what this machine gives; say what mends the rest.

    An image is really decoded, a GPU really computes. Ends with status 1 if rela cannot be used here;
    warnings, and extras that are not there, do not count.
    """
    from rela.stages.doctor import doctor as stage

    health = stage.examine(ctx.find_root().params["workspace"])
    print_result(as_json, stage.format_health, health)
    if not health.usable:
        ctx.exit(_NOT_USABLE)
