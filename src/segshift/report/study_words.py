"""What a study found, in plain sentences: numbers of the gap table in, strings out."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from segshift.metrics import Measure
from segshift.report.measures import digits, lines_of, records
from segshift.results import (
    DONE,
    FAILED,
    Study,
    StudyTables,
    distinct,
    place_name,
    sites_of,
)
from segshift.results.significance import CAN_REACH_5_PERCENT

SPELLED_OUT = 6  # pairs; more sentences are read by nobody, the table has all
NAMED_SITES = 3


def train_label(train: str, sites: Sequence[str]) -> str:
    """The training sites as a reader says them: dijon; alpha and beta; all but delta."""
    own = sites_of(train)
    others = [site for site in sites if site not in own]
    if len(own) >= NAMED_SITES and 0 < len(others) < len(own):
        return f"all but {_listed(others)}"
    return _listed(own)


def short_name(name: str, train: str, sites: Sequence[str]) -> str:
    """A name of `line_names` with the training sites as a reader says them."""
    return train_label(train, sites) + name.removeprefix("+".join(sites_of(train)))


def fixed(value: float | None, measure: Measure) -> str:
    """A difference of `measure`, - where it is undefined; the noise of rounding is 0."""
    if value is None or pd.isna(value):
        return "-"
    return f"{round(value, digits(measure)) + 0.0:.{digits(measure)}f}"


def overview(gaps: pd.DataFrame, *, measure: Measure) -> str:
    """How many pairs lose, and how much they do in the mean; "" without a pair."""
    pairs = _pairs(gaps, measure)
    if len(pairs) < 2:
        return ""
    lost = int((pairs["gap_low"] > 0).sum())
    mean = fixed(pairs["gap"].mean(), measure)
    return (
        f"Of {len(pairs)} pairs of training and test site {lost} lose {measure.name}, with the "
        f"whole interval on that side; the mean gap is {mean}."
    )


def answers(gaps: pd.DataFrame, *, measure: Measure, sites: Sequence[str]) -> list[str]:
    """A sentence for each pair, the largest gap first, at most `SPELLED_OUT`."""
    pairs = _pairs(gaps, measure).sort_values(
        ["gap", "train", "site"], ascending=[False, True, True]
    )
    several = pairs["variant"].nunique() > 1
    return [
        _sentence(line, measure=measure, sites=sites, several=several)
        for line in records(pairs.head(SPELLED_OUT))
    ]


def troubles(jobs: pd.DataFrame) -> list[str]:
    """Failed and waiting jobs by name: their numbers are in no table."""
    said = []
    for job in records(jobs.drop_duplicates("job")):
        if job["status"] == FAILED:
            said.append(f"{job['job']} failed; its output is in jobs/{job['job']}.log")
    waiting = jobs[~jobs["status"].isin([DONE, FAILED])].drop_duplicates("job")["job"]
    if len(waiting):
        names = ", ".join(waiting.head(5)) + (", ..." if len(waiting) > 5 else "")
        several = f"{len(waiting)} jobs have" if len(waiting) > 1 else "1 job has"
        said.append(f"{several} not finished: {names}")
    if said:
        said.append("their numbers are in no table; the same command again does what is missing")
    return said


def missing(
    study: Study, tables: StudyTables, *, measure: Measure, attributed: bool, pictures: bool
) -> list[str]:
    """What the study cannot tell, and why."""
    said = []
    if study.rows.empty:
        return ["tables and figures: no job has finished"]
    sites = set(study.rows["site"])
    if len(sites) == 1:
        said.append(f"gaps: all cases are of one site, {min(sites)}")
    gaps = distinct(tables.gaps)
    pairs = _pairs(gaps, measure)
    if pairs.empty and len(sites) > 1:
        said.append(f"gaps: no network has {measure.name} both in domain and at another site")
    blind = sorted({x["site"] for x in records(pairs) if pd.isna(x["shift"]) and not _knows(x)})
    if blind:
        said.append(
            f"how much harder {_listed(blind)} {'is' if len(blind) == 1 else 'are'}: no network "
            "trained there alone was tested in domain on all structures (split=single_source)"
        )
    pairs = pairs.assign(whole=pairs["tested"] + pairs["unpaired"])
    most = pairs[pairs["tested"] > 0].sort_values("whole", ascending=False, kind="stable")
    most = most.drop_duplicates("site")
    for line in records(most[most["unpaired"] > 0].sort_values("site")):
        said.append(
            f"the shift at {line['site']} is of {line['tested']} of its {line['whole']} "
            "patients, those of the folds that were run; all folds would cover the others"
        )
    seeds = study.rows.groupby(["part", "variant", "train"])["seed"].nunique()
    if seeds.max() == 1:
        said.append(
            "how much another training would differ: one seed; intervals are about patients only"
        )
    if (study.rows["corruption"] == "").all():
        said.append("curves of growing shifts: no set was tested under one (shift=mild)")
    if not attributed:
        said.append("which shift it is: no job has an attribution.csv")
    if not pictures:
        said.append("worst cases: no slices in jobs/*/figures/slices")
    return said


def _pairs(gaps: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    return lines_of(gaps, measure).dropna(subset=["gap"])


def _sentence(
    line: Mapping[str, Any], *, measure: Measure, sites: Sequence[str], several: bool
) -> str:
    network = f"{line['variant']}: a network" if several else "A network"
    who = f"{network} trained at {train_label(line['train'], sites)}"
    where = place_name(line["set"], line["site"])
    gap = f"{fixed(line['gap'], measure)} {measure.name}{_interval(line, 'gap', measure)}"
    patients = _patients(line["tested"] + line["unpaired"])
    if pd.isna(line["gap_low"]):
        verdict = (
            f"has a gap of {gap} at {where} (no interval: too few patients with some structure)"
        )
    elif line["gap_low"] > 0:
        verb = "loses" if measure.better == "higher" else "is worse by"
        verdict = f"{verb} {gap} at {where} ({patients})"
    elif line["gap_high"] < 0:
        verdict = f"does better at {where} ({patients}) than at home, a gap of {gap}"
    else:
        verdict = f"is not shown to lose at {where} ({patients}): its gap is {gap}"
    return f"{who} {verdict}{_split(line, where, measure)}"


def _split(line: Mapping[str, Any], where: str, measure: Measure) -> str:
    if _knows(line):
        return f"; it was trained at {line['site']}, so the gap is not split."
    if pd.isna(line["shift"]):
        return f"; whether {where} is harder is unknown, its own network was not measured."
    if line["tested"] < CAN_REACH_5_PERCENT:
        few = f"{_patients(line['tested'])} {'is' if line['tested'] == 1 else 'are'} too few"
        estimate = f"estimate {fixed(line['shift'], measure)}, p {line['p']:.2g}"
        return f"; {few} to tell what the shift costs ({estimate})."
    size, cost = (fixed(abs(line[part]), measure) for part in ("harder", "shift"))
    tested = f"{_patients(line['tested'])}, " if line["unpaired"] else ""
    evidence = f"{tested}p {line['p']:.2g}, Holm {line['p_holm']:.2g}"
    bounds = f"{_interval(line, 'shift', measure)} ({evidence})"
    if float(size) == 0 and line["shift"] >= 0:
        return f", all of it because of the shift{bounds}."
    if line["harder"] >= 0 and line["shift"] >= 0:
        parts = f"{size} because {where} is harder and {cost} because of the shift"
        return f", of which {parts}{bounds}."
    relation = "harder" if line["harder"] >= 0 else "easier"
    effect = f"the shift costs {cost}" if line["shift"] >= 0 else f"the shift gains {cost}"
    return f"; {where} is {relation} by {size}, and {effect}{bounds}."


def _knows(line: Mapping[str, Any]) -> bool:
    """Whether the network was trained at the site, which then has no oracle but itself."""
    return line["site"] in sites_of(line["train"])


def _patients(count: int) -> str:
    return f"{count} patient{'' if count == 1 else 's'}"


def _interval(line: Mapping[str, Any], name: str, measure: Measure) -> str:
    low, high = line[f"{name}_low"], line[f"{name}_high"]
    return "" if pd.isna(low) else f" [{fixed(low, measure)}, {fixed(high, measure)}]"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), names[-1]])
