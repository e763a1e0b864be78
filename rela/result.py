"""How results look: one line for `repr`, small tables in a notebook. Light."""

from collections.abc import Iterable, Sequence
from typing import Any

from rela.errors import one_line

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]  # header, rows; a None is a dash
_MOST_LETTERS, _MOST_ROWS = 100, 100


class Result:
    """Base of what `import rela` returns. A dataclass below it needs `repr=False`."""

    def shown(self) -> dict[str, Any]:
        """What matters, by its name; what is None is left out."""
        raise NotImplementedError

    def tables(self) -> dict[str, Table]:
        """Tables by their titles, which a notebook shows below that; those without rows are left out."""
        return {}

    def __repr__(self) -> str:
        words = (f"{name} {_text(value)}" for name, value in self._figures().items())
        return f"<{type(self).__name__}: {', '.join(words)}>"

    def _repr_html_(self) -> str:
        figures = [[name, value] for name, value in self._figures().items()]
        tables = {title: table for title, table in self.tables().items() if table[1]}
        return "\n".join(
            [
                _html(type(self).__name__, (), figures),
                *(_html(title, *table) for title, table in tables.items()),
            ]
        )

    def _figures(self) -> dict[str, Any]:
        return {name: value for name, value in self.shown().items() if value is not None}


def _text(value: Any) -> str:
    """One line, a long one without its middle; an integer with thousands separated."""
    if value is None:
        return "–"
    is_count = isinstance(value, int) and not isinstance(value, bool)
    text = f"{value:,}" if is_count else one_line(str(value))
    half = _MOST_LETTERS // 2
    return text if len(text) <= _MOST_LETTERS else f"{text[:half]}…{text[-half:]}"


def _html(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table without styles or scripts; every text in it is escaped."""
    from html import escape  # imported here to keep the command line light

    def cells(values: Iterable[Any], tag: str) -> str:
        made = (
            f'<{tag} align="{"right" if isinstance(v, int | float) else "left"}">'
            f"{escape(_text(v))}</{tag}>"
            for v in values
        )
        return f"<tr>{''.join(made)}</tr>"

    lines = [cells(header, "th")] if header else []
    lines += [cells(row, "td") for row in rows[:_MOST_ROWS]]
    if len(rows) > _MOST_ROWS:
        lines.append(cells([f"and {len(rows) - _MOST_ROWS:,} more"], "td"))
    return f"<table><caption>{escape(_text(title))}</caption>{''.join(lines)}</table>"
