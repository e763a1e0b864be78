"""A mistake at the command line: it is refused in one line, and nothing changes."""

import shlex
from pathlib import Path

from command_line import run_rela


def listing(root: Path) -> list[str]:
    """Every artifact and every run there is."""
    found = [*root.rglob("manifest.json"), *root.rglob("config.json")]
    return sorted(str(path.relative_to(root)) for path in found)


def assert_refused(place: Path, line: str, status: int, words: list[str]) -> None:
    """`rela LINE` exits with `status`, and one line, or a line and an indented list, has the words."""
    before = listing(place)
    result = run_rela(*shlex.split(line), exit_code=status)
    said = result.stderr.strip().splitlines()
    assert result.stdout == ""
    [first] = [i for i, line in enumerate(said) if line.startswith(("rela: ", "Error: "))]
    assert all(line.startswith("  ") for line in said[first + 1 :])  # a list, if there is one
    for word in words:
        assert word in "\n".join(said[first:])
    assert listing(place) == before
