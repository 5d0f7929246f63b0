"""One process of a distributed run: `python -m segshift.worker RUN_FOLDER`, started by torchrun."""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from segshift import build
from segshift.run import fit_and_test


def main() -> None:
    """Do the run that the frozen `config.yaml` of the folder describes."""
    folder = Path(sys.argv[1])
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    fit_and_test(build.experiment(config), folder)


if __name__ == "__main__":
    main()
