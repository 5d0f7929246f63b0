"""A plan and entries of the store for the boxes of `make_case`."""

import os
import time

from segshift.data.store import store_cases
from segshift.plan import make_plan


def plan_for(cases, **options):
    structures = {"structures": ("box", "core")}
    defaults = {"dimensions": 3, "context": 0, "batch": 2, "patch_voxels": 10**6}
    return make_plan(cases, **structures | defaults | options)


def stored(cases, folder, **options):
    return store_cases(cases, plan_for(cases, **options), folder=folder, quiet=True)


def aged(case, *, hours=1):
    """The case with files that nobody has written to for a while."""
    for path in (*case.images, case.annotation.label):
        os.utime(path, (time.time() - 3600 * hours,) * 2)
    return case
