"""Lists from strangers: a text with an entry a line, or a CSV whose first line names its columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from unsee.errors import InputError, unknown
from unsee.io.settings_file import bounded
from unsee.spelling import listed


def entries(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The entries of a list, each with its place, "names.csv, line 3", and its cells by column, without empty ones.

    columns  that a CSV may have; every entry has the first one

    A file is a CSV if its name ends in .csv, or if its first line names several columns. A line of any other text is an
    entry, or several as `spelling.listed` takes them apart. Blank lines and lines that start with # are skipped.
    Raises InputError, with the line, for a file that cannot be read, has no entries, or has other columns.
    """
    text = bounded(path, "a list", "words from ", encoding="utf-8-sig")
    lines = [(k, line) for k, line in enumerate(text.splitlines(), start=1) if line.strip()[:1] not in ("", "#")]
    first = [cell.strip().casefold() for cell in lines[0][1].split(",")] if lines else []
    if path.suffix.lower() == ".csv" or (len(first) > 1 and columns[0] in first):
        found = list(_rows(path, text, columns))
    else:
        found = [(f"{path}, line {k}", {columns[0]: word}) for k, line in lines for word in listed(line)]
    if not found:
        raise InputError(f"{path} is empty: it should name something, one a line")
    return found


def _rows(path: Path, text: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV. A cell in double quotes may go on in the next line: a row's place is its first line."""
    reader = csv.reader(text.splitlines(keepends=True), strict=True, skipinitialspace=True)
    head: list[str] = []
    while True:
        place = f"{path}, line {reader.line_num + 1}"
        try:
            row = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{place}: this is not a CSV: {error}") from error
        if not any(row) or row[0].startswith("#"):
            continue
        if not head:
            head = _head(place, row, columns)
        elif len(row) > len(head):
            several = "a cell with commas goes in double quotes"
            raise InputError(f"{place}: it has {len(row)} cells for {len(head)} columns: {several}")
        else:
            cells = {name: cell for name, cell in zip(head, row, strict=False) if cell}
            if columns[0] not in cells:
                raise InputError(f"{place}: the column {columns[0]!r} is empty")
            yield place, cells


def _head(place: str, row: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The columns that the first line of a CSV names."""
    head = [cell.casefold() for cell in row]
    if columns[0] not in head:
        has, may = ", ".join(row), ", ".join(columns)
        raise InputError(
            f"{place}: a CSV starts with the names of its columns; {columns[0]!r} is not in {has!r}; known: {may}"
        )
    for k, name in enumerate(head):
        if name not in columns:
            raise InputError(f"{place}: {unknown('column', row[k], columns)}")
        if name in head[:k]:
            raise InputError(f"{place}: the column {name!r} is there twice")
    return head
