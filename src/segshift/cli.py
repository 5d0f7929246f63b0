"""The command line: Hydra for the root scripts, argparse for `segshift ...`; errors without noise.

Nothing here imports torch: `--help` and a wrong option are answered at once.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segshift.cli_attribute import add_attribute_command
from segshift.cli_cohort import add_cohort_commands
from segshift.cli_compare import add_compare_command
from segshift.errors import InputError, TrainingDivergedError, escape_unprintable


def train() -> None:
    """`python train.py ...` and `segshift train ...`."""
    _hydra("train")


def evaluate() -> None:
    """`python evaluate.py ...` and `segshift evaluate ...`."""
    _hydra("evaluate")


def predict() -> None:
    """`python predict.py ...` and `segshift predict ...`."""
    _hydra("predict")


def study() -> None:
    """`python study.py ...` and `segshift study ...`."""
    _study(sys.argv[1:])


def main(arguments: Sequence[str] | None = None) -> None:
    """`segshift train|evaluate|predict|study|compare|attribute|export|network|cohort ...`."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in ("train", "evaluate", "predict"):
        sys.argv = [f"segshift {arguments[0]}", *arguments[1:]]
        _hydra(arguments[0])
        return
    if arguments and arguments[0] == "study":
        _study(arguments[1:])
        return
    escape_unprintable()
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except (InputError, OSError) as error:  # a folder where a file is to be written, a full disk
        sys.exit(f"error: {error}")


def _hydra(job: str) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from segshift.build import conf_folder

    escape_unprintable()
    verbose = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to here

    def task(config: Any) -> None:  # noqa: ANN401
        from segshift import evaluation, prediction, run

        hydra_config = HydraConfig.get()
        with _telling(verbose=verbose):  # also here, before Hydra adds a line of its own
            if job == "predict":  # it has no folder of its own to describe
                prediction.predict(config)
                return
            {"train": run.train, "evaluate": evaluation.evaluate}[job](
                config,
                Path(hydra_config.runtime.output_dir),
                command=shlex.join(["python", f"{job}.py", *hydra_config.overrides.task]),
                choices={
                    group: choice
                    for group, choice in hydra_config.runtime.choices.items()
                    if not group.startswith("hydra/") and choice
                },
            )

    if job == "evaluate" and any(
        word.startswith(("predictions=", "references=")) for word in sys.argv[1:]
    ):
        # A folder of that name where one stands would be a group of configs.
        sys.argv.append("hydra.searchpath=[]")
    with _telling(verbose=verbose):
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=job)(task)()


def _study(words: Sequence[str]) -> None:
    from segshift.study import procedure

    escape_unprintable()
    if "--help" in words or "-h" in words:
        print(procedure.help_text())
        return
    with _telling(verbose="HYDRA_FULL_ERROR" in os.environ):
        procedure.study(words)


@contextmanager
def _telling(*, verbose: bool) -> Iterator[None]:
    """End with a message for what a user can mend, with a traceback for what only we can."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit("stopped")
    except Exception as error:
        message = _message(error)
        if verbose or message is None:
            raise
        sys.exit("\n".join([f"error: {message}", *getattr(error, "__notes__", ())]))


def _message(error: BaseException) -> str | None:
    """What a user needs to read, or None if this is a bug that needs its traceback."""
    from hydra.errors import HydraException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, InputError | TrainingDivergedError):
            return str(link)
    for link in chain:
        if isinstance(link, ConfigKeyError | ConfigAttributeError) and link.parent_node is not None:
            known = [str(key) for key in link.parent_node if key != link.key]
            return f"there is no option {link.full_key!r}; known there are: {', '.join(known)}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return str(error)
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segshift", description="Train segmentation networks and see how they travel."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("train", help="the same as python train.py; see segshift train --help")
    commands.add_parser("evaluate", help="the same as python evaluate.py")
    commands.add_parser("predict", help="the same as python predict.py")
    commands.add_parser("study", help="the same as python study.py; see segshift study --help")
    network = commands.add_parser(
        "network", help="a network in numbers: stages, receptive field, FLOPs, memory"
    )
    network.add_argument(
        "overrides", nargs="*", metavar="GROUP=CHOICE", help="as for train: model=... data=..."
    )
    network.set_defaults(run=_network)
    exporter = commands.add_parser("export", help="a run's network for other software")
    exporter.add_argument("checkpoint", metavar="RUN", help="a run's folder or a .ckpt")
    exporter.add_argument("--format", required=True, help="torch_export, onnx or monai_bundle")
    exporter.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new or empty one"
    )
    exporter.set_defaults(run=_export)
    add_compare_command(commands.add_parser("compare", help="which run is better, or is it chance"))
    add_attribute_command(commands.add_parser("attribute", help="which shift is it, at each site"))
    add_cohort_commands(commands.add_parser("cohort", help="make, look at and check a manifest"))
    return parser


def _network(arguments: argparse.Namespace) -> None:
    from hydra import compose, initialize_config_dir

    from segshift import build, environment
    from segshift.announcement import announcement

    folder = str(build.conf_folder())
    with _telling(verbose="HYDRA_FULL_ERROR" in os.environ):
        with initialize_config_dir(folder, version_base="1.3"):
            config = compose("train", overrides=arguments.overrides)
        parts = build.experiment(config)
        print(announcement(parts))

        from segshift.report import network_numbers, print_network

        trainer = parts.config.trainer
        precision = environment.precision(trainer.precision, trainer.accelerator)
        module = build.module_of(parts.config, parts.plan, precision=precision)
        print_network(network_numbers(module, parts.plan, precision=precision))


def _export(arguments: argparse.Namespace) -> None:
    from segshift.export import export

    export(arguments.checkpoint, arguments.output, to=arguments.format)


if __name__ == "__main__":
    main()
