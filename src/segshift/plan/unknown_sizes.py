"""What to say of cases whose physical size nobody stated, before they are used together."""

from collections.abc import Mapping, Sequence

from segshift.cohort import Case
from segshift.cohort.images import Geometry
from segshift.plan.content import Plan
from segshift.units import NO_PHYSICAL_SIZE, mixed_told


def sizes_told(
    sets: Mapping[str, Sequence[Case]], headers: Mapping[str, Geometry], plan: Plan
) -> list[str]:
    """A sentence each of sets in which sizes differ in kind, and of what is not resampled.

    `headers` are those of all cases of the sets, by case.
    """
    known = {name: [headers[case.id].spacing_known for case in own] for name, own in sets.items()}
    told = [mixed_told(known)]
    if plan.spacing_known and not all(one for own in known.values() for one in own):
        told.append("cases without a physical size are not resampled to the plan's spacing")
    return [line for line in told if line]


def resolutions_told(cases: Sequence[Case], headers: Mapping[str, Geometry], plan: Plan) -> str:
    """A sentence of training cases of which nothing tells whether they are equally fine; or ""."""
    shapes = sorted({headers[case.id].shape for case in cases})
    if plan.spacing_known or len(shapes) < 2:
        return ""
    least, most = ("x".join(map(str, shape)) for shape in (shapes[0], shapes[-1]))
    return (
        f"training cases have {least} to {most} voxels; whether that is another resolution is "
        f"{NO_PHYSICAL_SIZE}; they are taken as they are, none is resampled"
    )
