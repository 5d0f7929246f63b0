"""Splits by chance and by site: who is held out at home, and which hospitals are not seen at all.

All group by patient and stratify by site.
"""

from collections.abc import Sequence
from dataclasses import replace

from segshift.cohort import Cohort
from segshift.errors import InputError
from segshift.splits.split import IN_DOMAIN, Split, site_set, with_outside
from segshift.splits.strata import Patient, Sites, cases_of, everyone, parted, share, strata


def random(cohort: Cohort, *, seed: int, val_fraction: float, test_fraction: float) -> Split:
    """Hold out shares of all patients for validation and for `in_domain`, of sites in proportion.

    Raises InputError for fractions that leave nobody to learn from.
    """
    sites = strata(cohort.cases, seed)
    count = len(everyone(sites))
    testing = share(count, test_fraction, option="test_fraction")
    choosing = share(count, val_fraction, option="val_fraction")
    if val_fraction + test_fraction >= 1:
        raise InputError(
            f"split.val_fraction={val_fraction} and split.test_fraction={test_fraction} are of all "
            "patients, and together leave none to train on; their sum must be below 1"
        )
    test, kept = parted(sites, testing, seed)
    val, learned = parted(kept, min(choosing, max(count - testing - 1, 0)), seed)
    return Split(cases_of(everyone(learned)), cases_of(val), {IN_DOMAIN: cases_of(test)})


def kfold(cohort: Cohort, *, seed: int, folds: int, fold: int, val_fraction: float) -> Split:
    """Test on fold number `fold` of `folds`; each patient is tested in exactly one fold.

    `val_fraction` is of the patients outside the fold.
    """
    if not (type(folds) is int and type(fold) is int and folds >= 2 and 0 <= fold < folds):
        raise InputError(
            f"split.fold={fold} of split.folds={folds}: at least 2 folds, numbered 0 to folds - 1"
        )
    sites = strata(cohort.cases, seed)
    if folds > (count := sum(map(len, sites.values()))):
        raise InputError(
            f"split.folds={folds}, but {cohort.name} has {count} patient(s) at "
            f"{list(sites)}, one for each fold at most"
        )
    test: list[Patient] = []
    kept: Sites = {}
    offset = 0  # goes on from site to site, so that many small sites still give even folds
    for site, patients in sites.items():
        test += [p for i, p in enumerate(patients, offset) if i % folds == fold]
        kept[site] = [p for i, p in enumerate(patients, offset) if i % folds != fold]
        offset += len(patients)
    choosing = share(len(everyone(kept)), val_fraction, option="val_fraction")
    val, learned = parted(kept, choosing, seed)
    return Split(cases_of(everyone(learned)), cases_of(val), {IN_DOMAIN: cases_of(test)})


def leave_site_out(
    cohort: Cohort,
    *,
    seed: int,
    held_out: str | Sequence[str],
    val_fraction: float,
    test_fraction: float,
) -> Split:
    """Train without the held-out sites; each becomes the evaluation set `site-<name>`."""
    given = held_out if isinstance(held_out, list | tuple) else (held_out,)
    sites_out = tuple(str(site) for site in given)
    if len(set(sites_out)) < len(sites_out):
        raise InputError(f"split.held_out={list(sites_out)} names a site twice; name each once")
    unknown = [site for site in sites_out if site not in cohort.sites]
    if unknown or not sites_out:
        what = f"names the unknown site(s) {unknown}" if unknown else "names no site"
        raise InputError(
            f"split.held_out {what}; this cohort has {list(cohort.sites)}. Name one or a list of "
            "them, or take split=random or split=kfold"
        )
    if set(sites_out) == set(cohort.sites):
        raise InputError(f"split.held_out={list(sites_out)} leaves no site to train on")
    home = random(
        replace(cohort, cases=tuple(c for c in cohort.cases if c.site not in sites_out)),
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
    )
    return _with_sites(home, cohort, sites_out)


def single_source(
    cohort: Cohort, *, seed: int, source: str, folds: int, fold: int, val_fraction: float
) -> Split:
    """Train at one site alone: `in_domain` is its fold, all other sites are `site-<name>`.

    Over the folds every patient of the source is judged once: how well a model of its own does
    there. A cohort of one site has no other set than that.
    """
    source = str(source)
    if source not in cohort.sites:
        raise InputError(f"split.source={source}: the sites are {list(cohort.sites)}; name one")
    own = replace(cohort, cases=tuple(c for c in cohort.cases if c.site == source))
    home = kfold(own, seed=seed, folds=folds, fold=fold, val_fraction=val_fraction)
    return _with_sites(home, cohort, [site for site in cohort.sites if site != source])


def _with_sites(home: Split, cohort: Cohort, sites: Sequence[str]) -> Split:
    """With the evaluation set `site-<name>` of each of the sites."""
    outside = {site_set(s): [c for c in cohort.cases if c.site == s] for s in sites}
    return with_outside(home, "the training sites", outside)
