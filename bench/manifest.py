"""Load and validate a manifest of 10,000 cases without opening an image.

`python bench/manifest.py [cases]` writes a manifest to a temporary folder and prints the seconds
and the peak memory of `read_manifest` and of the checks of `segshift cohort check` that need no
pixels. The bounds are 3 s and 300 MB.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

from segshift.audit.listing import check_listing
from segshift.cohort import Case, read_manifest, write_manifest


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
                label=Path(name) / "labels" / f"case-{i:06d}.nii.gz",
                label_values=(1, 2),
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
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"cases    {len(cohort.cases)}, findings {len(found)}")
    print(f"read     {read - start:.2f} s")
    print(f"checks   {checked - read:.2f} s")
    print(f"together {checked - start:.2f} s, peak memory {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
