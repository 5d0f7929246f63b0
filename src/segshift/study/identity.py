"""What a job is, as a hash: its options, its cases to the byte, and the code that runs it.

Two jobs of one identity would end with the same rows, so only one of them is ever run; and the
result of a job whose data or options have changed since is never taken for the new one's.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import segshift
from segshift import build
from segshift.cohort import Case, Cohort
from segshift.cohort.annotation import HashOf
from segshift.data.content import content_hash
from segshift.errors import InputError
from segshift.progress import threads, tracked
from segshift.splits import Split

# Options that change no row, and why.
IRRELEVANT = {
    "name": "where a run of train.py is written",
    "store": "a preprocessed case is the same in every store",
    "logger": "who is told",
    **{
        f"data.{name}": "the cases themselves count, wherever their manifest lies"
        for name in ("cohort", "manifest", "structures", "sites", "rater", "held_out")
    },
    "trainer.workers": "a patch is the same in every process that reads it",
}

COMPUTING = ("torch", "monai", "lightning")  # other versions end with other weights


def hashes(store: Path) -> HashOf:
    """A function that hashes a file's bytes, each file once; `store` remembers them for later."""
    return functools.cache(functools.partial(content_hash, store=store))


def read_all(cases: Iterable[Case], hash_of: HashOf) -> None:
    """Hash the files of all cases, some at a time, behind a bar."""
    files = sorted({file for case in cases for file in _files(case)})
    with ThreadPoolExecutor(threads()) as pool:
        for _ in tracked(pool.map(hash_of, files), "looking at files", total=len(files)):
            pass


@functools.cache
def code_hash() -> str:
    """SHA-256, in hex, of the package's source files and the versions of COMPUTING.

    As this process found them at first.
    """
    package = Path(segshift.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package).as_posix()}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    for name in COMPUTING:
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    return digest.hexdigest()


def check_unchanged(described: Mapping[str, Any]) -> None:
    """Raises InputError if the code or the data are not those that a job was planned for.

    `described` is what the job's file holds.
    """
    changed = "{} changed since the study was planned{}; run it again"
    if described["code"] != code_hash():
        raise InputError(changed.format(f"the code of segshift, {' or '.join(COMPUTING)}", ""))
    config = OmegaConf.create(described["config"])
    try:
        cohort = build.cohort_of(config)
        split = build.split_of(config, cohort)
        now = identity(described["config"], cohort, split, hashes(Path(config.store)))
    except (InputError, OSError) as error:
        raise InputError(changed.format("the data", f" ({error})")) from error
    if now != described["identity"]:
        raise InputError(changed.format("the data", ""))


def identity(config: Mapping[str, Any], cohort: Cohort, split: Split, hash_of: HashOf) -> str:
    """SHA-256, in hex, of the code, a resolved config, and the cases on every side."""
    sides = {"train": split.train, "val": split.val, **split.tests}
    content = {
        "code": code_hash(),
        "config": _relevant(config),
        "channels": cohort.channels,
        "structures": cohort.structures,
        "sides": {
            name: [_described(case, hash_of) for case in cases] for name, cases in sides.items()
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _described(case: Case, hash_of: HashOf) -> list[Any]:
    return [case.described(hash_of), case.patient, case.site, sorted(case.tags.items())]


def _files(case: Case) -> list[Path]:
    """Every file that the case is read from, as it describes itself."""
    files: list[Path] = []

    def noted(file: Path) -> str:
        files.append(file)
        return ""

    case.described(noted)
    return files


def _relevant(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    kept = {}
    for key, value in node.items():
        path = f"{prefix}{key}"
        if path not in IRRELEVANT:
            kept[key] = _relevant(value, f"{path}.") if isinstance(value, Mapping) else value
    return kept
