"""What to say of cases whose physical size nobody stated, before they are used together."""

from collections.abc import Mapping, Sequence

from segshift.cohort import Case
from segshift.cohort.images import Geometry
from segshift.plan.content import Plan
from segshift.units import NO_PHYSICAL_SIZE, mixed_told


def sizes_told(
    sets: Mapping[str, Sequence[Case]], headers: Mapping[str, Geometry], plan: Plan
) -> list[str]:
    """A sentence each of sets whose sizes differ in kind, and of resolutions that nobody knows.

    `headers` are those of all cases of the sets, by case.
    """
    known = {name: [headers[case.id].spacing_known for case in own] for name, own in sets.items()}
    told = [mixed_told(known)]
    if plan.spacing_known and not all(one for own in known.values() for one in own):
        told.append("cases without a physical size are not resampled to the plan's spacing")
    told.append(_resolutions_told([headers[c.id] for own in sets.values() for c in own], plan))
    return [line for line in told if line]


def _resolutions_told(headers: Sequence[Geometry], plan: Plan) -> str:
    """Of cases of which nothing tells whether they are equally fine; "" if there are none."""
    shapes = sorted({header.shape for header in headers})
    if plan.spacing_known or plan.scale or len(shapes) < 2:
        return ""
    least, most = ("x".join(map(str, shape)) for shape in (shapes[0], shapes[-1]))
    return (
        f"cases have {least} to {most} voxels; whether their resolutions differ is "
        f"{NO_PHYSICAL_SIZE}; all are taken as they are, none is resampled to another's"
    )
