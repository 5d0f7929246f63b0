"""Load and validate a manifest of 10,000 cases without opening an image.

`python bench/manifest.py [cases]` writes a manifest to a temporary folder and prints the seconds
and the peak memory of `read_manifest` and of the checks of `segshift cohort check` that need no
pixels, then again with every tenth line broken, then of the search for near copies among as many
random hashes. The bounds of the first are 3 s and 300 MB.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segshift.audit.duplicates import check_duplicates
from segshift.audit.listing import check_listing
from segshift.audit.measure import Facts
from segshift.cohort import Annotation, Case, read_manifest, write_manifest
from segshift.cohort.manifest import read_sound_lines

HASH_BITS = 8 * 16 * 16  # of a volume


def main() -> None:
    """Measure and print one line each."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as name:
        manifest = Path(name) / "manifest.csv"
        cases = [
            Case(
                id=f"case-{i:06d}",
                patient=f"patient-{i // 2:06d}",
                site=f"site-{i // 2 % 20}",
                images=(Path(name) / "images" / f"case-{i:06d}.nii.gz",),
                annotation=Annotation(Path(name) / "labels" / f"case-{i:06d}.nii.gz", (1, 2)),
                tags={"vendor": "north", "tr_ms": "500"},
            )
            for i in range(count)
        ]
        write_manifest(manifest, cases, channels=["image"], structures=["liver", "kidney"])
        del cases
        start = time.perf_counter()
        cohort = read_manifest(manifest)
        read = time.perf_counter()
        found = check_listing(
            cohort.cases, folder=manifest.parent, min_patients=3, allow_outside=False
        )
        checked = time.perf_counter()
        peak_mb = _peak_mb()
        lines = manifest.read_text(encoding="utf-8").splitlines()
        lines[1::10] = [line.replace("liver=1", "liver") for line in lines[1::10]]
        manifest.write_text("\n".join(lines), encoding="utf-8")
        again = time.perf_counter()
        _, broken = read_sound_lines(manifest)
        sound = time.perf_counter()
    print(f"cases    {len(cohort.cases)}, findings {len(found)}")
    print(f"read     {read - start:.2f} s")
    print(f"checks   {checked - read:.2f} s")
    print(f"together {checked - start:.2f} s, peak memory {peak_mb:.0f} MB")
    print(f"broken   {len(broken)} lines told in {sound - again:.2f} s")
    facts = _facts(cohort.cases)
    start = time.perf_counter()
    near = check_duplicates(facts)
    seconds = time.perf_counter() - start
    print(f"copies   {len(near)} in {seconds:.1f} s, peak memory {_peak_mb():.0f} MB")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _facts(cases: Sequence[Case]) -> list[Facts]:
    """What is kept of each case, with a hash of random bits."""
    random = np.random.default_rng(0)
    return [
        Facts(
            case=case,
            shape=(1, 1, 1),
            spacing_mm=(1.0, 1.0, 1.0),
            quantiles=(),
            image_hash=number.to_bytes(4),
            label_hash=b"",
            appearance=random.random(HASH_BITS) < 0.5,
            outside_share=np.nan,
            poses=None,
        )
        for number, case in enumerate(cases)
    ]


if __name__ == "__main__":
    main()
