"""The figures as text that a person reads at once. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from tests.bench.measure import SIGNAL_TO_GONE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.bench.footprint import Idle, Weight
    from tests.bench.many_agents import Stop
    from tests.bench.measure import Case, Sample
    from tests.bench.rq_workers import RqFigures

NAME_WIDTH = 52
FIGURE_WIDTH = 24


def stop_table(case: Case, samples: Mapping[str, Sequence[Sample]], against: str) -> str:
    """One line per contestant, and its ratio to the one called `against`, pair by pair."""
    lines = [_line(f"Stop {_title(case)} sleeps", "first gone, ms", "all gone, ms", f"all gone: x {against}'s")]
    own = [sample.gone.all_ms for sample in samples[against]]
    for name, taken in samples.items():
        first = [sample.gone.first_ms for sample in taken]
        gone = [sample.gone.all_ms for sample in taken]
        lines.append(_line(name, spread(first), spread(gone), _ratio(gone, own)))
    return "\n".join(lines)


def own_table(case: Case, samples: Sequence[Sample], name: str) -> str:
    """What the contestant says of itself."""
    lines = [_line(f"{name}'s own report, {case.hosts} x {case.each}", "ms, in Redis time")]
    lines += [_line(what, spread([sample.own_ms[what] for sample in samples])) for what in samples[0].own_ms]
    return "\n".join(lines)


def signal_table(case: Case, samples: Mapping[str, Sequence[Sample]], against: str) -> str:
    """What those who tell say of the stopping alone, without the way of the request."""
    lines = [_line(f"First signal to all gone, {_title(case)}", "ms, own word", f"x {against}'s")]
    own = [sample.own_ms[SIGNAL_TO_GONE] for sample in samples[against]]
    for name, taken in samples.items():
        if SIGNAL_TO_GONE in taken[0].own_ms:
            figures = [sample.own_ms[SIGNAL_TO_GONE] for sample in taken]
            lines.append(_line(name, spread(figures), _ratio(figures, own)))
    return "\n".join(lines)


def startup_table(figures: Mapping[str, Sequence[float]], against: str) -> str:
    """One line per command, and its ratio to the one called `against`, pair by pair."""
    lines = [_line("Whole commands", "ms", f"x {against}'s")]
    lines += [_line(name, spread(taken), _ratio(taken, figures[against])) for name, taken in figures.items()]
    return "\n".join(lines)


def memory_table(figures: Mapping[str, Sequence[Mapping[str, Weight]]], against: str) -> str:
    """One line per supervisor and one per process of it."""
    head = _line("Memory of a supervisor of one sleep", "PSS, MB", "RSS, MB", f"PSS: x {against}'s")
    return "\n".join([head, *_by_role(figures, ("pss", "rss"), against)])


def idle_table(figures: Mapping[str, Sequence[Mapping[str, Idle]]], against: str) -> str:
    """One line per supervisor and one per process of it."""
    head = _line("The same, idle, per minute", "processor, ms", "wake-ups", f"processor: x {against}'s")
    return "\n".join([head, *_by_role(figures, ("cpu_ms", "wake_ups"), against)])


def rq_table(figures: RqFigures, against: str) -> str:
    """One line per kind of worker: of a job's stop, and of its start; ratios to the one called `against`."""
    lines = [_line("Stop one RQ job: to the work-horse's end", "ms", f"x {against}'s", "its daemon's end, ms")]
    for (name, daemon), taken in figures.stops.items():
        gone = [each.horse_ms for each in taken]
        own = [each.horse_ms for each in figures.stops[against, daemon]]
        daemons = [each.daemon_ms for each in taken if each.daemon_ms is not None]
        last = "" if not daemon else spread(daemons) if daemons else "stays"
        lines.append(_line(f"{name}{', with a setsid daemon' * daemon}", spread(gone), _ratio(gone, own), last))
    lines.append(_line("Stop one RQ job: until RQ says `stopped`", "ms", f"x {against}'s"))
    for (name, daemon), taken in figures.stops.items():
        told = [each.told_ms for each in taken]
        own = [each.told_ms for each in figures.stops[against, daemon]]
        lines.append(_line(f"{name}{', with a setsid daemon' * daemon}", spread(told), _ratio(told, own)))
    for title, by_name in (
        ("From enqueue to the function, worker idle", figures.starts_ms),
        ("The same job, many waiting: time for each", figures.many_ms),
    ):
        lines.append(_line(title, "ms", f"x {against}'s"))
        lines += [_line(name, spread(taken), _ratio(taken, by_name[against])) for name, taken in by_name.items()]
    return "\n".join(lines)


def many_table(size: int, taken: Sequence[Stop]) -> str:
    """One stop of a job of many agents, beside the floors of the same run, and what the record costs."""

    def line(name: str, field: str, unit: str, by: float = 1.0) -> str:
        return _line(name, f"{spread([getattr(each, field) * by for each in taken])} {unit}")

    return "\n".join(
        (
            _line(f"One job of {size:,} agents, from the request to", "median (least - most)"),
            line("half of the agents have heard", "heard_half", "ms"),
            line("the last agent has heard", "heard_all", "ms"),
            line("  floor: a bare PUBLISH to as many subscribers", "bare_publish", "ms"),
            line("the last report is in", "reports_in", "ms"),
            line("  floor: bare HSET + XADD of as many, pipelined", "bare_fan_in", "ms"),
            line("the follower has the verdict", "verdict_seen", "ms"),
            line("server's processor time for it, per agent", "server_us", "us"),
            line("  floor: that of both floors", "bare_server_us", "us"),
            line("memory in Redis per agent, with its events", "agent_bytes", "bytes"),
            line("beats: the server's share of a processor", "beats_cpu", "%", 100.0),
            line("beats: scripts per second", "beats_per_s", ""),
        )
    )


def recovery_table(figures: Mapping[str, Sequence[float]]) -> str:
    """One line per kind of cut."""
    lines = [_line("From `the link is back` to the process's end", "ms, median (least - most)")]
    return "\n".join([*lines, *(_line(name, spread(taken)) for name, taken in figures.items())])


def single_table(title: str, taken: Sequence[float], unit: str = "ms") -> str:
    """One figure."""
    return _line(title, f"{spread(taken)} {unit}")


def spread(taken: Sequence[float]) -> str:
    """Median, then the extremes: `4.1  (3.2 - 9.9)`."""
    return f"{_short(median(taken)):>6}  ({_short(min(taken))} - {_short(max(taken))})"


def _by_role(
    figures: Mapping[str, Sequence[Mapping[str, object]]], fields: Sequence[str], against: str
) -> Iterator[str]:
    """Sum up each supervisor's processes; the ratio is that of the first field."""

    def sums(name: str, field: str) -> list[float]:
        return [sum(getattr(each, field) for each in by_role.values()) for by_role in figures[name]]

    for name, rounds in figures.items():
        ratio = _ratio(sums(name, fields[0]), sums(against, fields[0]))
        yield _line(name, *(spread(sums(name, field)) for field in fields), ratio)
        for role in rounds[0] if len(rounds[0]) > 1 else ():
            yield _line(f"  {role}", *(spread([getattr(one[role], field) for one in rounds]) for field in fields))


def _title(case: Case) -> str:
    hosts = "1 host" if case.hosts == 1 else f"{case.hosts} hosts"
    return f"{hosts} x {case.each}"


def _ratio(taken: Sequence[float], against: Sequence[float]) -> str:
    """Median of the ratios of rounds that were taken right after each other, and their extremes."""
    ratios = [ours / theirs for ours, theirs in zip(taken, against, strict=True)]
    return spread(ratios)


def _short(number: float) -> str:
    if number >= 100:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def _line(name: str, *figures: str) -> str:
    return f"{name:<{NAME_WIDTH}}" + "".join(f"{figure:<{FIGURE_WIDTH}}" for figure in figures).rstrip()
