"""What a command does to its process.

Covers: objects are frozen at the very end, so that they are not searched for cycles.
"""

from command_line import run_python


def test_objects_are_frozen_at_the_end():
    ended = run_python(
        "-c",
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000, flush=True))  # runs last\n"
        "from rela.stages.commandline.process import prepare_process\n"
        "prepare_process()\n"
        "print(gc.get_freeze_count() > 1000)",
    )
    assert ended.stdout.split() == ["False", "True"], ended.stderr
