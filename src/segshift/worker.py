"""One process of a distributed run: `python -m segshift.worker RUN_FOLDER PARENT_PROCESS`."""

import json
import os
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from segshift import build
from segshift.errors import InputError, TrainingDivergedError, escape_unprintable
from segshift.launch import end_with
from segshift.plan import plan_from_dict
from segshift.run import fit_and_test, stored


def main() -> None:
    """Do the run that the frozen `config.yaml` of the folder describes."""
    end_with(int(sys.argv[2]))
    escape_unprintable()
    folder = Path(sys.argv[1])
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    processes = int(os.environ["LOCAL_WORLD_SIZE"])
    torch.set_num_threads(max(torch.get_num_threads() // processes, 1))  # share the cores
    try:
        plan = plan_from_dict(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
        parts = build.experiment(config, plan=plan)
        fit_and_test(parts, stored(parts), folder)
    except (InputError, TrainingDivergedError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(1)


if __name__ == "__main__":
    main()
