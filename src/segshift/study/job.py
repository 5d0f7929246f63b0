"""One job of a study in a process of its own: `python -m segshift.study.job STUDY/jobs/JOB.json`.

It does nothing if the job is complete. Only one process at a time works on a job: what an earlier,
killed study has left running is waited for, and its result is used.
"""

import fcntl
import json
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from segshift.errors import InputError, TrainingDivergedError, escape_unprintable
from segshift.results import DONE
from segshift.results.drafts import write_whole
from segshift.study.folder import MARKER, finished, run_folder
from segshift.study.identity import check_unchanged


def main() -> None:
    """Do what is still to do of the job that the file describes."""
    escape_unprintable()
    file = Path(sys.argv[1])
    described = json.loads(file.read_text(encoding="utf-8"))
    with file.with_suffix(".lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("an earlier process still works on this job; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            check_unchanged(described)
            marker = finished(file, described["identity"]) or _trained(file, described)
            if described["attribute"] and not marker["attributed"]:
                _attribute(file, described, marker)
        except (InputError, TrainingDivergedError) as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit("stopped")


def _trained(file: Path, described: Mapping[str, Any]) -> dict[str, Any]:
    from segshift import run

    folder = run_folder(file)
    shutil.rmtree(folder, ignore_errors=True)  # what was stopped half-way
    start = time.monotonic()
    run.train(
        OmegaConf.create(described["config"]),
        folder,
        command=shlex.join(["python", "train.py", *described["overrides"]]),
        choices=described["choices"],
    )
    check_unchanged(described)  # while it trained, too
    marker = {
        "identity": described["identity"],
        "status": DONE,
        "seconds": round(time.monotonic() - start, 1),
        "steps": described["steps"],
        "attributed": False,
    }
    write_whole(folder / MARKER, json.dumps(marker) + "\n")
    return marker


def _attribute(file: Path, described: Mapping[str, Any], marker: Mapping[str, Any]) -> None:
    """Ask of every other site which shift it is; the rows of the run stay whatever happens."""
    from segshift.attribution import attribute, has_target

    folder, start = run_folder(file), time.monotonic()
    if has_target(folder):
        attribute(folder, data=described["config"]["data"])
    seconds = round(marker["seconds"] + time.monotonic() - start, 1)
    content = {**marker, "attributed": True, "seconds": seconds}
    write_whole(folder / MARKER, json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
