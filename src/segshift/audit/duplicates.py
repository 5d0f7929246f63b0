"""The same image twice, or nearly: a leak between patients and sites that no split can see."""

from collections.abc import Iterator, Sequence

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
    first: dict[bytes, Facts] = {}
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
    for length in sorted({len(one.appearance) for one in facts}):
        group = [one for one in facts if len(one.appearance) == length]
        for i, j, likeness in _close_pairs([one.appearance for one in group]):
            one, other = group[j], group[i]
            alike = (one.case.patient, one.case.site) == (other.case.patient, other.case.site)
            if alike or one.image_hash == other.image_hash:
                continue
            yield Finding(
                severity="warning",
                kind="near-duplicate",
                case=one.case.id,
                site=one.case.site,
                message=f"case {one.case.id!r} ({_whose(one)}) looks like case {other.case.id!r} "
                f"({_whose(other)}), likeness {likeness:.2f} of 1; if it is one acquisition, keep "
                "one of them or give both one patient id",
            )


def _close_pairs(hashes: Sequence[np.ndarray]) -> Iterator[tuple[int, int, float]]:
    """Pairs i < j whose hashes correlate by more than NEAR, block by block."""

    def rows(start: int) -> np.ndarray:
        block = np.stack(hashes[start : start + BLOCK]).astype(np.float32)
        block -= block.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(block, axis=1, keepdims=True)
        return np.asarray(block / np.maximum(norms, 1e-6))

    for top in range(0, len(hashes), BLOCK):
        mine = rows(top)
        for left in range(top, len(hashes), BLOCK):
            likeness = mine @ (mine if left == top else rows(left)).T
            for i, j in zip(*np.nonzero(likeness > NEAR), strict=True):
                if top + i < left + j:
                    yield int(top + i), int(left + j), float(likeness[i, j])
