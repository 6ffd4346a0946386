"""What coord says of itself on stderr: JSON lines for machines, readable ones on a terminal.

Event names are part of the contract; README.md lists them. Imported late: structlog is slow to import.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def logger(level: str | None, stream: TextIO, **bound: str | int) -> FilteringBoundLogger:
    """Make the logger. Level None: `info` where a machine reads, `warning` where a person does."""
    person = sys.stderr.isatty()
    chosen = level or ("warning" if person else "info")
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
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
