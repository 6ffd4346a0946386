"""What coord says of itself on stderr: JSON lines for machines, readable ones on a terminal.

Event names are part of the contract; README.md lists them. Imported late: structlog is slow to import.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import FilteringBoundLogger, Processor


@contextmanager
def _without_rich() -> Iterator[None]:
    """Keep structlog from taking rich along: 5 MB in every agent, for tracebacks that it never shows."""
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # the import system's own way to say that there is none
    try:
        yield
    finally:
        del sys.modules["rich"]


with _without_rich():
    import structlog


def logger(level: str | None, stream: TextIO, **bound: str | int) -> FilteringBoundLogger:
    """Make the logger. Level None: `info` where a machine reads, `warning` where a person does."""
    person = sys.stderr.isatty()
    chosen = level or ("warning" if person else "info")
    render: Processor = structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer()
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not person),
        *([] if person else [structlog.processors.dict_tracebacks]),
        render,
    ]
    made = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, chosen.upper())),
    )
    return cast("FilteringBoundLogger", made.bind(**bound))
