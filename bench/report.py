"""What was measured, as data: medians, ratios and expectations; rendered as a table or as JSON."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""Seconds, where a report names no other unit: metric -> contestant -> one value a round."""


@dataclass(frozen=True)
class Expectation:
    """In ``metric``, ``subject`` takes at most ``factor`` times the median of ``base``, plus ``plus`` seconds."""

    metric: str
    subject: str
    base: str
    factor: float
    plus: float = 0.0

    def __str__(self) -> str:
        plus = f" + {self.plus:g} s" if self.plus else ""
        return f"{self.metric}: {self.subject} at most {self.factor:g} x {self.base}{plus}"


@dataclass(frozen=True)
class Report:
    """One run of one bench. ``facts`` says what it ran on; ``subject`` is whom the ratios are of."""

    bench: str
    subject: str
    facts: Mapping[str, str]
    samples: Samples
    expectations: Sequence[Expectation] = field(default_factory=tuple)
    units: Mapping[str, str] = field(default_factory=dict)
    """Of the metrics that are no seconds."""

    def unit(self, metric: str) -> str:
        return self.units.get(metric, "s")

    def median(self, metric: str, contestant: str) -> float:
        return statistics.median(self.samples[metric][contestant])

    def ratios(self, metric: str) -> dict[str, float]:
        """The subject's median over each other contestant's; empty when the subject was not measured."""
        if self.subject not in self.samples[metric]:
            return {}
        own = self.median(metric, self.subject)
        others = (name for name in self.samples[metric] if name != self.subject)
        return {name: own / self.median(metric, name) for name in others}

    def verdicts(self) -> list[tuple[Expectation, float, float]]:
        """Each expectation whose contestants were measured, with the seconds allowed and found."""
        found = []
        for expectation in self.expectations:
            metric = expectation.metric
            if {expectation.subject, expectation.base} <= set(self.samples[metric]):
                limit = expectation.factor * self.median(metric, expectation.base) + expectation.plus
                found.append((expectation, limit, self.median(metric, expectation.subject)))
        return found


def as_json(report: Report) -> str:
    """The report as one JSON object; times in seconds, other metrics in the unit of their name."""
    metrics = {
        metric: {
            "samples": {name: [round(value, 6) for value in values] for name, values in by_name.items()},
            "medians": {name: round(report.median(metric, name), 6) for name in by_name},
            "ratios": {name: round(ratio, 4) for name, ratio in report.ratios(metric).items()},
        }
        for metric, by_name in report.samples.items()
    }
    expectations = [
        {
            "expected": str(expectation),
            "limit": round(limit, 6),
            "measured": round(measured, 6),
            "met": measured <= limit,
        }
        for expectation, limit, measured in report.verdicts()
    ]
    whole = {
        "bench": report.bench,
        "subject": report.subject,
        "facts": dict(report.facts),
        "metrics": metrics,
        "expectations": expectations,
    }
    return json.dumps(whole, indent=2)


def as_table(report: Report) -> str:
    """The report for people."""
    lines = [f"{report.bench}: " + ", ".join(f"{key} {value}" for key, value in report.facts.items()), ""]
    width = max(len(name) for by_name in report.samples.values() for name in by_name) + 2
    width = max(width, *(len(metric) for metric in report.samples))
    lines.append(f"{'':{width}} {'median':>8} {'least':>9} {'most':>9}   {report.subject} takes")
    for metric, by_name in report.samples.items():
        lines.append(metric)
        ratios = report.ratios(metric)
        for name, values in by_name.items():
            ratio = f"{ratios[name]:.2f} x {name}" if name in ratios else ""
            columns = (report.median(metric, name), min(values), max(values))
            shown = "".join(f" {value:8.3f}{report.unit(metric)}" for value in columns)
            lines.append(f"  {name:{width - 2}}{shown}   {ratio}".rstrip())
    verdicts = report.verdicts()
    if verdicts:
        lines.append("")
    for expectation, limit, measured in verdicts:
        word = "met" if measured <= limit else "NOT met"
        unit = report.unit(expectation.metric)
        lines.append(f"expected {expectation} = {limit:.3f} {unit}; measured {measured:.3f} {unit}: {word}")
    return "\n".join(lines)
