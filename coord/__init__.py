"""coord stops distributed jobs on all their hosts, and proves that everything is gone.

This package is the control plane: what a shutdown is, and its record in Redis. It starts no process and signals
none; the host side is the package `workers`. Python code that stops jobs finds here what it needs; each name is
imported when it is first used, so that `import coord` costs nothing.
"""

TYPE_CHECKING = False  # typing is slow to import, and `coord.child` is imported by programs

__version__ = "0.1.0"

__all__ = [
    "AsyncCoordinator",
    "CoordError",
    "Coordinator",
    "Event",
    "NoSuchJobError",
    "RefusedError",
    "Requested",
    "Snapshot",
    "UnreachableError",
    "UsageError",
    "Verdict",
    "job_document",
]

if TYPE_CHECKING:
    from coord.control import Requested
    from coord.coordinator import AsyncCoordinator, Coordinator
    from coord.errors import CoordError, NoSuchJobError, RefusedError, UnreachableError, UsageError
    from coord.messages import Event
    from coord.render.document import job_document
    from coord.snapshot import Snapshot, Verdict
else:
    _HOMES = {
        "coord.control": ("Requested",),
        "coord.coordinator": ("AsyncCoordinator", "Coordinator"),
        "coord.errors": ("CoordError", "NoSuchJobError", "RefusedError", "UnreachableError", "UsageError"),
        "coord.messages": ("Event",),
        "coord.render.document": ("job_document",),
        "coord.snapshot": ("Snapshot", "Verdict"),
    }

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        from importlib import import_module

        for home, names in _HOMES.items():
            if name in names:
                globals()[name] = found = getattr(import_module(home), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
