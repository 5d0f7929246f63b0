"""What a run is about to do, for people who can still stop it."""

from segshift.build import Experiment
from segshift.plan import OBJECT, Scale, sizes_told


def announcement(parts: Experiment) -> str:
    """Cohort, split and plan in three lines, and what is not known of the cases' sizes.

    Also what brings pictures to one scale.
    """
    cohort, plan, split = parts.cohort, parts.plan, parts.split
    named = {"train": split.train, "val": split.val, **split.tests}
    sizes = {name: len(cases) for name, cases in named.items()}
    shifted = sum(s.shift.severity > 0 for s in parts.sets)
    unused = {c.id for c in cohort.cases} - {c.id for cases in named.values() for c in cases}
    chosen_at = ", ".join(sorted({c.site for c in split.val}))
    edges = "x".join(map(str, plan.view.patch))
    context = f" with {plan.view.context} neighbouring slices" if plan.view.context else ""
    return (
        f"cohort:    {cohort.name}, {len(cohort.cases)} cases at {', '.join(cohort.sites)}; "
        f"structures {', '.join(cohort.structures)}\n"
        f"split:     {', '.join(f'{name} {count}' for name, count in sizes.items())}"
        + (f"; {shifted} more sets under shifts" if shifted else "")
        + (f"; {len(unused)} in no set" if unused else "")
        + f"; selection {parts.config.selection} on {chosen_at}\n"
        f"plan:      batch {plan.batch} of {edges}{context}, spacing "
        f"{'x'.join(f'{s:g}' for s in plan.spacing_mm)} {plan.length}, {len(plan.strides)} stages"
        + (f"\nscale:     {_scale(plan.scale)}" if plan.scale else "")
        + "".join(f"\nsizes:     {line}" for line in sizes_told(named, parts.headers, plan))
    )


def _scale(scale: Scale) -> str:
    size = f"{scale.by} of {scale.typical_px:.4g} pixels, the median of the training cases"
    if scale.by == OBJECT:
        return f"{size}; all others are predicted twice, first with their pixels as they are"
    return size
