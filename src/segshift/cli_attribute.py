"""`segshift attribute RUN`: which shift is it, at each site that a run was tested at.

Predicts the run's test cases once more; wrong input is refused before torch is imported.
"""

import argparse
from pathlib import Path


def add_attribute_command(parser: argparse.ArgumentParser) -> None:
    """The options of `segshift attribute`; sets `run` to what it does."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--seed", type=int, default=0, help="of the permutations; 0")
    parser.set_defaults(run=_attribute)


def _attribute(arguments: argparse.Namespace) -> None:
    from segshift.attribution import attribute
    from segshift.attribution.console import print_attribution
    from segshift.attribution.procedure import ANSWERS, MEASUREMENTS

    print_attribution(attribute(arguments.folder, seed=arguments.seed))
    for name in (ANSWERS, MEASUREMENTS):
        print(f"{name:<17} {arguments.folder / name}")
