"""metrics.json: what each measured number means, beside the rows that hold it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from segshift.errors import InputError
from segshift.metrics import Measure
from segshift.results.drafts import write_whole

RECORD = "metrics.json"
Measures = Mapping[str, Measure]  # by name; the first one is what pages and tables are about


def by_name(measures: Iterable[Measure]) -> dict[str, Measure]:
    """The measures by their names. Raises InputError for two of one name that differ."""
    known: dict[str, Measure] = {}
    for measure in measures:
        other = known.setdefault(measure.name, measure)
        if other != measure:
            raise InputError(
                f"metric {measure.name!r} means two things: {_said(other)} and {_said(measure)}; "
                "give one of them another name"
            )
    return known


def write_measures(folder: Path, measures: Iterable[Measure]) -> None:
    """Write metrics.json into the folder of a run or a study, in this order."""
    content = [asdict(measure) for measure in by_name(measures).values()]
    write_whole(folder / RECORD, json.dumps(content, indent=1) + "\n")


def read_measures(folder: Path) -> dict[str, Measure]:
    """What `write_measures` wrote. Raises InputError where it is absent or broken."""
    path = folder / RECORD
    if not path.is_file():
        raise InputError(f"{path} is absent: what the metrics of {folder} mean is not known")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return by_name(Measure(**line) for line in content)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a list of name, unit and better: {error}") from error


def check_measured(names: Iterable[str], measures: Measures) -> None:
    """Raises InputError for rows of a metric that nothing is known of."""
    unknown = sorted(set(names) - set(measures))
    if unknown:
        raise InputError(
            f"which end is better is not said for the metric(s) {', '.join(unknown)}; "
            f"{RECORD} says it for {', '.join(measures)}"
        )


def _said(measure: Measure) -> str:
    return f"unit {measure.unit!r}, better {measure.better}"
