"""Cases against the rest of their site: sizes, spacings, intensities, body and orientation.

Outliers are judged by robust z (median and MAD) on logarithms, with a floor under the spread, so
that a site whose cases are all alike does not make an alarm of every rounding.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from segshift.audit.finding import Finding
from segshift.audit.measure import Facts
from segshift.audit.orientation import turned_cases
from segshift.cohort.case import SPACING

LEAST_CASES = 5  # fewer have no spread to speak of
FAR = 6.0  # robust z
SPACING_FLOOR = 0.06  # of the spread of log spacing: alarms from a factor 1.4 on
SIZE_FLOOR = 0.16  # of the spread of log size: alarms from a factor 2.6 on; slices vary in number
INTENSITY_FLOOR = 0.3  # of the spread of log grey levels: alarms from a factor 6 on
LEVEL_FLOOR = 0.5  # of the spread of the middle of the range, in ranges of grey levels
MOST_FAR = 0.15  # of a site: more outliers than that are the site's habit
OUTSIDE_SHARE = 0.5
OUTSIDE_USUAL = 0.2


def compare_cases(facts: Sequence[Facts]) -> list[Finding]:
    """Findings about cases that do not look like the rest of their site."""
    sites: dict[str, list[Facts]] = defaultdict(list)
    for one in facts:
        sites[one.case.site].append(one)
    findings = [*_orientation(facts), *_outside_body(facts), *_unsized(sites)]
    for members in sites.values():
        if len(members) >= LEAST_CASES:
            findings += [*_geometry(members), *_intensities(members)]
    return findings


def robust_z(values: np.ndarray, *, floor: float) -> np.ndarray:
    """Distance from the median in robust standard deviations (1.4826 MAD), at least `floor`."""
    median = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - median))
    return np.asarray((values - median) / max(float(spread), floor))


def _finding(one: Facts, kind: str, text: str) -> Finding:
    return Finding(
        severity="warning",
        kind=kind,
        case=one.case.id,
        site=one.case.site,
        message=f"case {one.case.id!r}: {text}",
    )


def _geometry(members: Sequence[Facts]) -> Iterator[Finding]:
    sized = [(one, one.spacing_mm) for one in members if one.spacing_mm is not None]
    shapes = [(one, one.shape) for one in members]
    for what, kind, known, floor in (
        ("spacing (z, y, x) in mm", "spacing-outlier", sized, SPACING_FLOOR),
        ("size (z, y, x) in voxels", "size-outlier", shapes, SIZE_FLOOR),
    ):
        if len(known) < LEAST_CASES:
            continue
        rows = [row for _, row in known]
        table = np.array(rows, dtype=np.float64)
        far = np.stack([robust_z(np.log(c), floor=floor) for c in table.T], axis=1)
        usual = tuple(float(f"{v:.3g}") for v in np.median(table, axis=0))
        for (one, row), z in zip(known, far, strict=True):
            if np.abs(z).max() > FAR:
                own = tuple(float(f"{v:.3g}") for v in row)
                text = f"its {what} is {own}, at {one.case.site} usually {usual}"
                yield _finding(one, kind, f"{text}; check the header against the scanner's export")


def _unsized(sites: Mapping[str, Sequence[Facts]]) -> Iterator[Finding]:
    """Sites in which nobody stated the voxels' size, where others or other cases have one."""
    every = [one for members in sites.values() for one in members]
    mixed = any(one.spacing_mm is not None for one in every)
    for site, members in sites.items():
        unsized = [one.case.id for one in members if one.spacing_mm is None]
        if unsized:
            yield Finding(
                severity="warning" if mixed else "info",
                kind="no-physical-size",
                case=unsized[0],
                site=site,
                message=f"{len(unsized)} of {len(members)} case(s) at {site!r}, the first is "
                f"{unsized[0]!r}, state no physical size: their lengths and sizes are in pixels"
                + (", others' in mm, and no mean is of both" if mixed else "")
                + f"; give it in the manifest's column {SPACING} where it is known",
            )


def _intensities(members: Sequence[Facts]) -> Iterator[Finding]:
    for channel in range(min(len(one.quantiles) for one in members)):
        low, _, high = np.array([one.quantiles[channel] for one in members]).T
        extent = np.maximum(high - low, 1e-6 * np.maximum(np.abs(high), 1.0))
        far = np.abs(robust_z(np.log(extent), floor=INTENSITY_FLOOR)) > FAR
        # In sites of one unit (CT), also those that are shifted; MR has no unit.
        middle = robust_z((high + low) / 2 / np.median(extent), floor=LEVEL_FLOOR)
        far |= (np.abs(middle) > FAR) & bool(np.std(np.log(extent[~far])) < INTENSITY_FLOOR)
        site, usual = members[0].case.site, f"{np.median(low):.4g} to {np.median(high):.4g}"
        if np.count_nonzero(far) > max(1.0, MOST_FAR * len(far)):
            yield Finding(
                severity="info",
                kind="intensity-scales",
                site=site,
                message=f"site {site!r} mixes scales of grey levels: channel {channel} of "
                f"{np.count_nonzero(far)} of {len(members)} cases is far from the usual {usual} "
                "(5 to 95 %); normalise per case",
            )
            continue
        for index in np.flatnonzero(far).tolist():
            yield _finding(
                members[index],
                "intensity-outlier",
                f"channel {channel} has grey levels {low[index]:.4g} to {high[index]:.4g} (5 to 95 "
                f"%), at {site} usually {usual}; check its units and rescaling",
            )


def _outside_body(facts: Sequence[Facts]) -> Iterator[Finding]:
    shares = np.array([one.outside_share for one in facts])
    labelled = shares[np.isfinite(shares)]
    # Where structures are darker than their surroundings everywhere, dark says nothing.
    if not len(labelled) or np.median(labelled) > OUTSIDE_USUAL:
        return
    for one in facts:
        if one.outside_share > OUTSIDE_SHARE:
            usual = [o.outside_share for o in facts if o.case.site == one.case.site]
            if len(usual) >= LEAST_CASES and np.nanmedian(usual) > OUTSIDE_USUAL:
                continue
            yield _finding(
                one,
                "label-outside-body",
                f"{one.outside_share:.0%} of the label {one.case.annotation.paths[0]} lies in the "
                "dark around the body; check that it belongs to this image and has its orientation",
            )


def _orientation(facts: Sequence[Facts]) -> Iterator[Finding]:
    known = [(one, one.poses) for one in facts if one.poses is not None]
    found = turned_cases([one.case.site for one, _ in known], [poses for _, poses in known])
    for index, (pose, label_alone) in found.items():
        one = known[index][0]
        what = f"the label {one.case.annotation.paths[0]}" if label_alone else "the whole case"
        other = "its image and the other cases" if label_alone else "the other cases"
        yield _finding(
            one,
            "orientation",
            f"{what} fits {other} better when {pose.name}; look at it, then export it again or "
            "mend the header's orientation",
        )
