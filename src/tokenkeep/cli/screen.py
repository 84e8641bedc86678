"""Where the command writes: tables and colours at a terminal, plain text in a pipe, JSON for programs."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, override

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokenkeep.cli import exits, wording
from tokenkeep.errors import ProviderUnavailable, TokenKeepError

if TYPE_CHECKING:
    from rich.progress import Progress


class Screen:
    """Results on stdout, everything else on stderr. rich decides what is a terminal, and respects NO_COLOR."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False)

    @property
    def rich(self) -> bool:
        """Whether a person looks at a terminal."""
        return self.out.is_terminal and not self.json

    # --- results ---

    def raw(self, line: str) -> None:
        """Write one line to stdout exactly as it is."""
        self.out.file.write(f"{line}\n")
        self.out.file.flush()

    def data(self, value: Any) -> None:
        """Write one line of JSON."""
        self.raw(wording.as_json(value))

    def say(self, sentence: str = "", *, style: str = "") -> None:
        """Write a sentence for people; nothing with `--json`."""
        if self.json:
            return
        if self.rich:
            self.out.print(Text(wording.clean(sentence), style))
        else:
            self.raw(wording.clean(sentence))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
        """Write a table for people; nothing with `--json`."""
        if self.json:
            return
        cells = [[wording.text(value) for value in row] for row in rows]
        if self.rich:
            self.out.print(_rich_table(columns, cells, title))
            return
        if title:
            self.raw(wording.clean(title))
        for line in _aligned([list(columns), *cells]):
            self.raw(line)

    def facts(self, facts: Mapping[str, Any], *, title: str = "") -> None:
        """Write names and values, one pair a line, for people; nothing with `--json`."""
        if self.json:
            return
        pairs = [[name, wording.text(value)] for name, value in facts.items()]
        if self.rich:
            grid = Table(box=None, show_header=False, title=title or None, title_style="bold", title_justify="left")
            for name, value in pairs:
                grid.add_row(Text(name, "cyan"), Text(value))
            self.out.print(grid)
            return
        if title:
            self.raw(wording.clean(title))
        for line in _aligned(pairs):
            self.raw(line)

    # --- everything else ---

    def note(self, sentence: str) -> None:
        """Tell something beside the result, on stderr."""
        if self.json:
            self._raw_error(wording.as_json({"note": sentence}))
        elif self.err.is_terminal:
            self.err.print(Text(wording.clean(sentence), "yellow"))
        else:
            self._raw_error(wording.clean(sentence))

    def log(self, at: datetime, level: str, source: str, sentence: str) -> None:
        """Write a line of a log, on stderr; its time is UTC."""
        if self.json:
            self._raw_error(wording.as_json({"at": at, "level": level, "source": source, "message": sentence}))
            return
        self._raw_error(wording.clean(f"{at:%Y-%m-%d %H:%M:%S}Z {level} {source}: {sentence}"))

    def fail(self, error: BaseException, *, debug: bool = False) -> int:
        """Tell of an error in one sentence, or with `--json` as an object, on stderr; return the exit code."""
        if debug:
            self.err.file.write("".join(traceback.format_exception(error)))
        self.refuse(type(error).__name__, sentence_of(error), exits.code_of(error), retry_after=_retry_after(error))
        return exits.code_of(error)

    def refuse(self, kind: str, sentence: str, code: int, *, retry_after: float | None = None) -> None:
        """Tell on stderr why the command ends with this exit code."""
        told = {"type": kind, "message": sentence, "exit_code": code}
        if self.json:
            more = {} if retry_after is None else {"retry_after": retry_after}
            self._raw_error(wording.as_json({"error": told | more}))
        elif self.err.is_terminal:
            self.err.print(Text(wording.clean(sentence), "bold red"))
        else:
            self._raw_error(wording.clean(sentence))

    def _raw_error(self, line: str) -> None:
        self.err.file.write(f"{line}\n")
        self.err.file.flush()

    @contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Progress]:
        """Show at a terminal, on stderr, that work goes on; its one task is `progress.task_ids[0]`."""
        from rich.progress import (  # noqa: PLC0415  # a quarter of what the whole command loads
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
        columns += [BarColumn(), MofNCompleteColumn()] if total is not None else []
        hidden = self.json or not self.err.is_terminal
        with Progress(*columns, TimeElapsedColumn(), console=self.err, transient=True, disable=hidden) as progress:
            progress.add_task(wording.clean(what), total=total)
            yield progress

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """Turn what the library logs and warns of into notes."""
        handler = _Notes(self)
        logger = logging.getLogger("tokenkeep")
        logger.addHandler(handler)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default", UserWarning)
                warnings.showwarning = lambda message, *_args, **_options: self.note(str(message))
                yield
        finally:
            logger.removeHandler(handler)


class _Notes(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._screen.note(record.getMessage())


def sentence_of(error: BaseException) -> str:
    """Return an error's own sentence; of an error that nobody expected only its name, it may quote anything."""
    if isinstance(error, (TokenKeepError, ValueError)):
        return str(error)
    return f"an unexpected {type(error).__name__}: run the command again with --debug and please report it"


def _retry_after(error: BaseException) -> float | None:
    if isinstance(error, ProviderUnavailable) and error.retry_after is not None:
        return error.retry_after.total_seconds()
    return None


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]], title: str) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title or None, title_style="bold", title_justify="left", header_style="cyan")
    for position, column in enumerate(columns):
        numeric = bool(cells) and all(_is_number(row[position]) for row in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).isdigit()


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield lines whose columns begin below each other, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
