"""Speed, side by side with what a user would otherwise run. One file per question, listed here."""

BENCHMARKS: dict[str, str] = {}  # name → what it measures; the module has the same name
