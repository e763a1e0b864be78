"""SECURITY.md: every guarantee has a name, and what is said to hold it is there."""

import ast
import re

from command_line import REPOSITORY

from benchmarks.faults import CAMPAIGNS

TEXT = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([a-z-]+)` \| (.*) \| (.*) \|$", TEXT, re.M)


def test_every_guarantee_is_held_by_tests_and_campaigns_that_exist():
    names = [name for name, _, _ in ROWS]
    said = re.findall(r"\(`([a-z-]+)`\)", TEXT)
    assert len(names) > 8 and names == sorted(set(names), key=said.index) and {*said} == {*names}
    for name, tests, campaigns in ROWS:
        held_by = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
        assert held_by and len(held_by) == tests.count("`") / 2, name
        for file, function in held_by:
            tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
            found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert function in found, f"{file} has no {function}"
        assert {*re.findall(r"`(\w+)`", campaigns)} <= CAMPAIGNS.keys(), name
    assert {*CAMPAIGNS} <= {*re.findall(r"`(\w+)`", " ".join(row[2] for row in ROWS))}
