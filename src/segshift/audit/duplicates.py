"""The same image twice, or nearly: a leak between patients and sites that no split can see."""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from segshift.audit.finding import Finding
from segshift.audit.listing import real_path
from segshift.audit.measure import Facts

NEAR = 0.85  # correlation of two perceptual hashes
BLOCK = 512


def check_duplicates(facts: Sequence[Facts]) -> list[Finding]:
    """Findings about images with the same voxels, and about images that nearly have them."""
    return [*_copies(facts), *_near_copies(facts)]


def _copies(facts: Sequence[Facts]) -> Iterator[Finding]:
    first: dict[str, Facts] = {}
    for one in facts:
        known = first.setdefault(one.image_hash, one)
        # The same file named twice is the listing's finding.
        if known is one or _files(known) == _files(one):
            continue
        apart = (known.case.patient, known.case.site) != (one.case.patient, one.case.site)
        labels = "the same label" if known.label_hash == one.label_hash else "another label"
        yield Finding(
            severity="error" if apart else "warning",
            kind="duplicate-image",
            case=one.case.id,
            site=one.case.site,
            message=f"case {one.case.id!r} ({_whose(one)}) has the same voxels as case "
            f"{known.case.id!r} ({_whose(known)}), with {labels}"
            + (": a leak" if apart else "")
            + "; keep one of them",
        )


def _files(one: Facts) -> list[str]:
    return [real_path(path) for path in one.case.images]


def _whose(one: Facts) -> str:
    return f"patient {one.case.patient!r} at {one.case.site}"


def _near_copies(facts: Sequence[Facts]) -> Iterator[Finding]:
    """One for each case, so that a thousand images that look alike are no million findings."""
    for length in sorted({len(one.appearance) for one in facts}):
        group = [one for one in facts if len(one.appearance) == length]
        for own, like, likeness, more in _likest(group):
            one, other = group[own], group[like]
            yield Finding(
                severity="warning",
                kind="near-duplicate",
                case=one.case.id,
                site=one.case.site,
                message=f"case {one.case.id!r} ({_whose(one)}) looks like case {other.case.id!r} "
                f"({_whose(other)}), likeness {likeness:.2f} of 1"
                + (f", and like {more} more case(s)" if more else "")
                + "; if it is one acquisition, keep one of them or give both one patient id",
            )


def _likest(group: Sequence[Facts]) -> Iterator[tuple[int, int, float, int]]:
    """Of cases whose hash correlates by more than NEAR with one before, of another patient.

    Gives the place in `group`, that of the likest before it, the correlation, and the number of
    further ones. Images with equal voxels are `_copies`'. Block by block: 10,000 hashes are 80 MB
    as float32, their correlations 400 MB.
    """
    whose = _numbered([(one.case.patient, one.case.site) for one in group])
    content = _numbered([one.image_hash for one in group])
    place = np.arange(len(group))
    best, likest = np.zeros(len(group), np.float32), np.zeros(len(group), int)
    count = np.zeros(len(group), int)
    for top in range(0, len(group), BLOCK):
        mine, rows = _standardised(group[top : top + BLOCK]), np.s_[top : top + BLOCK, None]
        for left in range(top, len(group), BLOCK):
            columns = np.s_[left : left + BLOCK]
            likeness = mine @ _standardised(group[columns]).T
            likeness[likeness <= NEAR] = 0
            likeness[(whose[rows] == whose[columns]) | (content[rows] == content[columns])] = 0
            likeness[place[rows] >= place[columns]] = 0
            count[columns] += np.count_nonzero(likeness, axis=0)
            highest = likeness.max(axis=0)
            closer = highest > best[columns]
            likest[columns] = np.where(closer, top + likeness.argmax(axis=0), likest[columns])
            best[columns] = np.where(closer, highest, best[columns])
    for own in np.flatnonzero(count).tolist():
        yield own, int(likest[own]), float(best[own]), int(count[own]) - 1


def _numbered(keys: Sequence[Hashable]) -> np.ndarray:
    """Equal numbers for equal keys."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=int)


def _standardised(group: Sequence[Facts]) -> np.ndarray:
    """Rows (N, length) of mean 0 and norm 1, whose products are correlations."""
    rows = np.stack([one.appearance for one in group]).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6))
