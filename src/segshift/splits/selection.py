"""Whom a network is chosen on, and how many it learns from: what a split's rule leaves open.

Gulrajani and Lopez-Paz, In search of lost domain generalization (ICLR 2021): a result at a new
hospital says nothing without the rule by which its model was chosen.
"""

from dataclasses import replace
from itertools import combinations

from segshift.cohort import Case
from segshift.errors import InputError
from segshift.seeds import derived_seed
from segshift.splits.split import IN_DOMAIN, Split, sorted_cases
from segshift.splits.strata import (
    Patient,
    cases_of,
    everyone,
    parted,
    proportional,
    share,
    strata,
)

SOURCE_VAL, ORACLE, LEAVE_ONE_SITE_OUT = "source_val", "oracle", "leave_one_site_out"
ORACLE_SHARE = 0.25  # of every target's patients


def selected(split: Split, *, rule: str, seed: int, site: str | None = None) -> Split:
    """The split with validation cases by a rule; training cases are the same, or some of them.

    `source_val`: as it is; raises InputError for patients of a site that is judged as a new one.
    `oracle`: a quarter of the patients of every set but `in_domain`, at least one, who then are in
    no set: what nobody has at a new hospital, a bound. `leave_one_site_out`: the training and
    validation cases of one training site, drawn by `seed` unless it is named; nothing is learned
    there then, so its patients are not in `in_domain` either but in no set. Raises InputError for
    a split whose `val` a rule has drawn before.
    """
    if split.selection is not None:
        raise InputError(
            f"selection={rule}: selection={split.selection} has drawn val of this split before. "
            f"Name that rule, and take the split.json of a run of selection={SOURCE_VAL}"
        )
    if rule == LEAVE_ONE_SITE_OUT:
        return _leave_one_site_out(split, seed=seed, site=site)
    if site is not None:
        raise InputError(
            f"selection_site={site} goes with selection={LEAVE_ONE_SITE_OUT}, not with {rule}"
        )
    if rule == ORACLE:
        return _oracle(split, seed=seed)
    if rule != SOURCE_VAL:
        raise InputError(
            f"selection={rule}: known are {SOURCE_VAL}, {ORACLE}, {LEAVE_ONE_SITE_OUT}"
        )
    _check_source_val(split)
    return split


def limited(split: Split, *, patients: int | None, seed: int) -> Split:
    """The split with so many training patients, sites in their shares; those of 4 are among 8.

    None: all of them. Sites that few patients leave out of training stay in `in_domain`.
    """
    if patients is None:
        return split
    there = proportional(strata(split.train, seed))
    if type(patients) is not int or not 1 <= patients <= len(there):
        raise InputError(
            f"train_patients={patients}: a whole number from 1 to {len(there)}, the patients that "
            "this split trains on; or null for all"
        )
    return replace(split, train=cases_of(there[:patients]))


def _check_source_val(split: Split) -> None:
    """A site too small to be on every side is a source all the same, if it is no target."""
    home = {case.site for case in (*split.train, *split.tests.get(IN_DOMAIN, ()))}
    away = {case.site for cases in split.tests.values() for case in cases} - home
    own = {case.patient for case in split.val if case.site not in away}
    foreign = [case for case in split.val if case.patient not in own]
    if foreign:
        raise InputError(
            f"selection={SOURCE_VAL} chooses on no patient of a site that is judged as a new one, "
            f"but val has {len({case.patient for case in foreign})} of "
            f"{sorted({case.site for case in foreign})} alone; {sorted(home)} are learned from or "
            f"judged in domain. Choosing at a new site is selection={ORACLE}; with split=from_file "
            f"name that rule, and the split.json of a run of selection={SOURCE_VAL}"
        )


def _refuse_twice_judged(rule: str, split: Split) -> None:
    """Raises InputError for sets of the same patients: one loses what the other is made of."""
    for (name, cases), (other_name, others) in combinations(split.tests.items(), 2):
        if {case.patient for case in cases} & {case.patient for case in others}:
            raise InputError(
                f"selection={rule}: {name} and {other_name} judge the same patients, and those "
                "it takes would leave both; take another selection with this split"
            )


def _oracle(split: Split, *, seed: int) -> Split:
    targets = {name: cases for name, cases in split.tests.items() if name != IN_DOMAIN}
    if not targets:
        raise InputError(
            f"selection={ORACLE} chooses on patients of other sets than {IN_DOMAIN}, and this "
            "split has none; take split=leave_site_out, or another selection"
        )
    _refuse_twice_judged(ORACLE, split)
    chosen: list[Patient] = []
    tests: dict[str, tuple[Case, ...]] = dict(split.tests)
    for name, cases in targets.items():
        sites = strata(cases, seed)
        count = len(everyone(sites))
        if count < 2:
            raise InputError(
                f"selection={ORACLE} needs 2 patients in {name}, one to choose on and one to "
                f"judge; it has {cases[0].patient!r} alone"
            )
        taken, left = parted(sites, share(count, ORACLE_SHARE, option=""), seed)
        chosen += taken
        tests[name] = cases_of(everyone(left))
    return Split(split.train, cases_of(chosen), tests, ORACLE)


def _leave_one_site_out(split: Split, *, seed: int, site: str | None) -> Split:
    sites = sorted({case.site for case in split.train})
    if len(sites) < 2 or (site is not None and site not in sites):
        raise InputError(
            f"selection={LEAVE_ONE_SITE_OUT} selection_site={site}: chooses on one of 2 or more "
            f"training sites, which are {sites}"
        )
    chosen = site or min(sites, key=lambda name: derived_seed(seed, "selection site", name))
    val = sorted_cases(case for case in (*split.train, *split.val) if case.site == chosen)
    _refuse_twice_judged(LEAVE_ONE_SITE_OUT, split)
    tests = dict(split.tests)
    home = tests.get(IN_DOMAIN, ())
    gone = {case.patient for case in (*val, *home) if case.site == chosen}
    if home:
        tests[IN_DOMAIN] = tuple(case for case in home if case.patient not in gone)
        if not tests[IN_DOMAIN]:
            raise InputError(
                f"selection={LEAVE_ONE_SITE_OUT} chooses on {chosen}, and all {len(home)} case(s) "
                f"of {IN_DOMAIN} are of that site, which is no training site then; name another "
                f"selection_site of {sites}, or hold out more patients with split.test_fraction"
            )
    train = tuple(case for case in split.train if case.patient not in gone)
    return Split(train, val, tests, LEAVE_ONE_SITE_OUT)
