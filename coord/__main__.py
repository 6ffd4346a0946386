"""The command `coord`, and `python -m coord`. An agent gets its guardian here, before anything slow is imported."""

from __future__ import annotations

import sys

GUARDED = ("run",)


def main() -> None:
    """Run the command; under a guardian where it starts processes."""
    if sys.argv[1:2] and sys.argv[1] in GUARDED:
        from workers.guardian import guard

        code = guard()
        if code is not None:
            sys.exit(code)
    from coord import cli

    cli.main()


if __name__ == "__main__":
    main()
