"""`segshift cohort ...`: manifests made, joined, shown and checked, and the store cleaned."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from segshift.errors import InputError


def add_cohort_commands(parser: argparse.ArgumentParser) -> None:
    """The actions of `segshift cohort`; each sets `run` to what it does."""
    cohort = parser.add_subparsers(required=True, metavar="ACTION")
    importer = cohort.add_parser("import", help="write the manifest of a data set")
    _add_formats(importer.add_subparsers(required=True, metavar="FORMAT"))
    union = cohort.add_parser("concat", help="several manifests as one")
    union.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST")
    union.add_argument("-o", "--output", type=Path, required=True, help="the CSV to write")
    union.set_defaults(run=_concat)
    shower = cohort.add_parser("show", help="the fingerprint: spacing, intensities, volumes")
    shower.add_argument("manifest", type=Path)
    shower.add_argument("--figures", type=Path, metavar="FOLDER", help="write figures there too")
    _add_rules(shower)
    shower.set_defaults(run=_show)
    cleaner = cohort.add_parser("clean", help="make the store of preprocessed cases smaller")
    store = Path(os.environ.get("SEGSHIFT_STORE", "data/store"))
    cleaner.add_argument("--store", type=Path, default=store, help=f"default: {store}")
    cleaner.add_argument(
        "--older-than", type=float, default=0, metavar="DAYS", help="only what no run used for DAYS"
    )
    cleaner.add_argument("--dry-run", action="store_true", help="only say what would go")
    cleaner.set_defaults(run=_clean)
    _add_check(cohort)


def _add_check(cohort: Any) -> None:  # noqa: ANN401
    checker = cohort.add_parser(
        "check", help="look for faults and leaks; exit status 2 for errors, 1 for warnings"
    )
    checker.add_argument("manifest", type=Path)
    _add_rules(checker)
    checker.add_argument("--json", type=Path, metavar="FILE", help="write all findings")
    checker.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures")
    checker.add_argument("--min-patients", type=int, default=3, metavar="N", help="per site; 3")
    checker.add_argument(
        "--allow-outside", action="store_true", help="files may lie outside the manifest's folder"
    )
    checker.set_defaults(run=_check)


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--structures", metavar="RULES", help="as data.structures: '{liver: 1, kidney: 2}'"
    )


def _add_formats(formats: Any) -> None:  # noqa: ANN401
    """One parser for each format, as each has options of its own."""
    texts = {
        "msd": "Medical Segmentation Decathlon: dataset.json, imagesTr, labelsTr",
        "nnunet": "nnU-Net raw data: one DatasetXXX folder, or a folder of several as sites",
        "bids": "BIDS with labels in derivatives",
        "folder": "two folders, images and labels, matched by file name",
        "dicom": "a tree of DICOM series, without labels",
    }
    parsers = {name: formats.add_parser(name, help=text) for name, text in texts.items()}
    for name, parser in parsers.items():
        parser.add_argument("path", type=Path)
        parser.add_argument("-o", "--output", type=Path, required=True, help="the CSV to write")
        parser.add_argument("--site", help="where all cases come from; default: a name found there")
        rule = "level:1 (a folder below PATH), column:vendor or regex:'^(\\w+)-' (on the id)"
        parser.add_argument("--site-from", metavar="RULE", help=rule)
        parser.add_argument("--patient-from", metavar="RULE", help="the same, for the patient")
        if name != "dicom":
            parser.add_argument("--structures", help="what values mean: 'liver=1 kidney=2'")
        parser.set_defaults(run=_import, format=name)
    parsers["folder"].add_argument(
        "--labels", type=Path, help="default: PATH/labels, with the images in PATH/images"
    )
    parsers["bids"].add_argument("--suffix", help="which images: T1w, or channels: T1w,FLAIR")


def _import(arguments: argparse.Namespace) -> None:
    from segshift.cohort import importers, read_manifest, write_manifest

    options: dict[str, Any] = {"site": arguments.site}
    if arguments.format != "msd":
        options["tell"] = print
    if getattr(arguments, "structures", None):
        options["structures"] = importers.parse_structures(arguments.structures)
    if getattr(arguments, "labels", None):
        options["labels"] = arguments.labels
    if getattr(arguments, "suffix", None):
        options["suffixes"] = tuple(arguments.suffix.split(","))
    imported = importers.renamed(
        getattr(importers, f"import_{arguments.format}")(arguments.path, **options),
        arguments.path,
        site_from=arguments.site_from,
        patient_from=arguments.patient_from,
    )
    cases, channels, structures = imported
    write_manifest(arguments.output, cases, channels=channels, structures=structures)
    sites = sorted({case.site for case in cases})
    print(
        f"{arguments.output}: {len(cases)} cases at {', '.join(sites)}, "
        + (f"structures {', '.join(structures)}" if structures else "no labels")
    )
    read_manifest(arguments.output)  # what a run would refuse is told now
    if structures:
        print(f"next: python train.py data=manifest data.manifest={arguments.output} split=kfold")


def _concat(arguments: argparse.Namespace) -> None:
    from segshift.cohort.importers import concatenate

    count = concatenate(arguments.manifests, arguments.output, tell=print)
    print(f"{arguments.output}: {count} cases of {len(arguments.manifests)} manifests")


def _show(arguments: argparse.Namespace) -> None:
    from segshift.cohort import read_manifest
    from segshift.cohort.fingerprint import read_facts

    cohort = read_manifest(arguments.manifest, structures=_rules(arguments.structures))
    facts = read_facts(cohort.cases)
    from segshift.report.fingerprint import print_fingerprint  # heavy, and not for wrong data

    channels, structures = cohort.channels, cohort.structures
    print_fingerprint(facts, name=cohort.name, channels=channels, structures=structures)
    if arguments.figures:
        from segshift.report.cohort_figures import write_cohort_figures

        for path in write_cohort_figures(
            facts, arguments.figures, channels=channels, structures=structures
        ):
            print(path)


def _rules(text: str | None) -> dict[str, Any] | None:
    """What `data.structures=TEXT` would mean."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        rules = OmegaConf.to_container(OmegaConf.create(text)) if text else None
    except YAMLError as error:
        raise InputError(f"--structures {text!r} is not YAML: {error}") from error
    if rules is not None and not isinstance(rules, dict):
        raise InputError(f"--structures {text!r}: it should read like '{{liver: 1, kidney: 2}}'")
    return rules  # type: ignore[return-value]


def _clean(arguments: argparse.Namespace) -> None:
    from segshift.data.cleaning import clean, store_size

    gone = clean(arguments.store, older_than_days=arguments.older_than, dry_run=arguments.dry_run)
    verb = "would remove" if arguments.dry_run else "removed"
    print(f"{arguments.store}: {verb} {gone}; left: {store_size(arguments.store)}")


def _end_with_error(message: str) -> NoReturn:
    """Not by status 1, which says that there are warnings."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _check(arguments: argparse.Namespace) -> None:
    from segshift.audit import check_manifest, print_audit, write_page

    for path in (arguments.json, arguments.html):
        if path and path.is_dir():
            _end_with_error(f"{path} is a folder; name the file to write")
    audit = check_manifest(
        arguments.manifest,
        structures=_rules(arguments.structures),
        min_patients=arguments.min_patients,
        allow_outside=arguments.allow_outside,
    )
    print_audit(audit)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(audit.json(), encoding="utf-8")
    if arguments.html:
        write_page(audit, arguments.html)
    sys.exit(audit.status)
