"""Two folders, images and labels, matched by the files' names without their suffixes."""

from collections.abc import Mapping
from pathlib import Path

from segshift.cohort.annotation import Annotation
from segshift.cohort.case import Case
from segshift.cohort.images import SUFFIXES
from segshift.cohort.importers.imported import Imported, Tell
from segshift.cohort.labelling import Values
from segshift.errors import InputError


def import_folder(
    folder: str | Path,
    *,
    tell: Tell,
    labels: str | Path | None = None,
    site: str | None = None,
    structures: Mapping[str, Values] | None = None,
) -> Imported:
    """Cases of `folder` and `labels`; without `labels`, of the folders `images` and `labels` in it.

    Files may lie deeper, by site for example, at the same place in both. `structures` (name to
    value) says what the labels' values mean. Raises InputError where nothing matches.
    """
    top = Path(folder)
    images = top / "images" if labels is None and (top / "images").is_dir() else top
    beside = Path(labels) if labels is not None else top / "labels"
    if not images.is_dir() or (labels is not None and not beside.is_dir()):
        missing = images if not images.is_dir() else beside
        raise InputError(f"{missing} is no folder; give PATH the images and --labels the labels")
    found = _by_stem(images, beside)
    drawn = _by_stem(beside, None) if beside.is_dir() else {}
    if not found:
        raise InputError(f"{images} holds no image; known are {', '.join(SUFFIXES)}")
    if drawn and not set(drawn) & set(found):
        raise InputError(
            f"no label in {beside} is named as an image in {images}: {min(drawn)!r} against "
            f"{min(found)!r}; both need the same name before the suffix"
        )
    if drawn and not structures:
        raise InputError(
            f"nothing says what the values in {beside} mean; add --structures 'liver=1 kidney=2'"
        )
    site = site or (top.parent if top.name == "images" else top).resolve().name
    named = dict(structures or {}) if drawn else {}
    cases = tuple(
        Case(
            stem.replace("/", "-"),
            stem.replace("/", "-"),
            site,
            (image.absolute(),),
            Annotation(drawn[stem].absolute() if stem in drawn else None, tuple(named.values())),
        )
        for stem, image in found.items()
    )
    for what, names in (
        ("images without a label", sorted(set(found) - set(drawn)) if drawn else []),
        ("labels without an image, left out", sorted(set(drawn) - set(found))),
    ):
        if names:
            tell(f"{len(names)} {what}: {', '.join(names[:10])}")
    return Imported(cases, ("image",), tuple(named))


def _by_stem(folder: Path, without: Path | None) -> dict[str, Path]:
    """Path below `folder` without suffix to file, sorted, leaving out what lies in `without`."""
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        suffix = next((each for each in SUFFIXES if path.name.lower().endswith(each)), None)
        inside = without is not None and path.is_relative_to(without)
        if suffix is None or inside or path.name.startswith(".") or not path.is_file():
            continue
        stem = path.relative_to(folder).as_posix()[: -len(suffix)]
        if stem in files:
            raise InputError(f"{path} and {files[stem]} have the same name; keep one of them")
        files[stem] = path
    return files
