"""Folders of empty files, for what only looks at names."""

from pathlib import Path


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def many(split: str, **counts: int) -> list[str]:
    return [f"{split}/{name}/{i:03d}.png" for name, count in counts.items() for i in range(count)]
