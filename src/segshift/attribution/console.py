"""The answers in a terminal: a table for each run, a sentence for each target."""

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshift.results import sites_of

KIND = {
    "covariate": "covariate: images",
    "prevalence": "prevalence: patients",
    "concept": "concept: annotation",
}


def print_attribution(answers: pd.DataFrame, *, console: Console | None = None) -> None:
    """Print a line for each target and kind, then for each target what was seen."""
    console = console or Console()
    for train, of_run in answers.groupby("train"):
        trained = ", ".join(sites_of(str(train)))
        table = Table(title=Text(f"which shift is it? trained at {trained}"), box=SIMPLE_HEAD)
        for name in ("set", "kind", "shift?"):
            table.add_column(name)
        for name in ("p", "Holm"):
            table.add_column(name, justify="right", no_wrap=True)
        for line in of_run.to_dict("records"):
            numbers = [_p(line[name]) for name in ("p", "p_corrected")]
            table.add_row(
                Text(str(line["set"])), KIND[str(line["kind"])], str(line["answer"]), *numbers
            )
        console.print(table)
        for target, of_target in of_run.groupby("set", sort=False):
            console.print(Text(f"{target}: {_sentence(of_target)}"))
            for line in of_target.to_dict("records"):
                console.print(Text(f"  {line['kind']}: {line['detail']}"))
    unknown = "too few patients to tell, or no physical size to compare"
    console.print(f"no: not shown, which proves no equality; unknown: {unknown}")


def _sentence(lines: pd.DataFrame) -> str:
    kinds = {answer: list(of["kind"]) for answer, of in lines.groupby("answer")}
    untold = kinds.get("unknown", [])
    if len(untold) == len(lines):
        return f"nothing could be tested: {', '.join(untold)}"
    shown = (
        f"{' and '.join(kinds['yes'])} shift is shown" if "yes" in kinds else "no shift is shown"
    )
    return shown + (f"; could not be tested: {', '.join(untold)}" if untold else "")


def _p(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.2g}"
