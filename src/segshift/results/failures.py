"""How often a run fails outright: patients that it fails, and the profile of failures per site.

A mean hides whether all cases are a little worse or a few are lost. What the rows have no metric
for has no column: `dice` for failures, `volume_difference_relative` for empty predictions,
`lesion_false_positives` for false blobs, `false_alarm` for structures that are not there. All are
pure functions of the rows of one network, or of several with `run` in `by`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from scipy.special import betaincinv

from segshift.results.intervals import COVERAGE, MEAN

FAILURE = 0.1  # an overlap below is a total failure: the structure was not found
MISS = -2.0  # what volume_difference_relative says of an empty prediction, and of nothing else

# Column of the profile: the metric that tells, and which of its values count.
SIGNS: Mapping[str, tuple[str, Callable[["pd.Series[float]"], "pd.Series[bool]"]]] = {
    "failed": ("dice", lambda values: values < FAILURE),
    "empty": ("volume_difference_relative", lambda values: values <= MISS),
    "false_alarm": ("false_alarm", lambda values: values > 0),
    "false_blobs": ("lesion_false_positives", lambda values: values > 0),
}
KEYS = ("run", "set", "corruption", "severity", "site")
COUNTS = ["failed_patients", "failed_of"]  # columns beside a mean of Dice


@dataclass(frozen=True, slots=True)
class Failed:
    """Of how many patients how many failed, with the exact 95 % bounds of the share.

    The bounds are two-sided (Clopper and Pearson, Biometrika 26, 1934), so none of 12 leaves room
    for 26 %. They are NaN for nobody.
    """

    patients: int
    of: int

    @property
    def low(self) -> float:
        """The lower bound of the share, 0 if none failed."""
        if not self.patients:
            return 0.0 if self.of else math.nan
        others = self.of - self.patients
        return float(betaincinv(self.patients, others + 1, (1 - COVERAGE) / 2))

    @property
    def high(self) -> float:
        """The upper bound of the share, 1 if all failed."""
        if self.patients == self.of:
            return 1.0 if self.of else math.nan
        others = self.of - self.patients
        return float(betaincinv(self.patients + 1, others, (1 + COVERAGE) / 2))

    @property
    def share(self) -> str:
        """The bounds in plain words: `up to 26 %`, `2 to 48 %`; "" of nobody."""
        if not self.of:
            return ""
        high = max(round(100 * self.high), 1)  # no bound of n patients is 0
        ends = f"{math.floor(100 * self.low)} to {high}" if self.patients else f"up to {high}"
        return f"{ends} %"

    @property
    def told(self) -> str:
        """In plain words: `0 of 12 failed: up to 26 %`, `2 of 12 failed: 2 to 48 %`."""
        if not self.of:
            return "no patient has it"
        return f"{self.patients} of {self.of} failed: {self.share}"


def failed_patients(rows: pd.DataFrame, *, by: Sequence[str] = KEYS) -> pd.DataFrame:
    """Patients with a Dice below 0.1 in any case that has the structure, by `by` and structure.

    Behind the structures of each group is a line `mean` for the mean over them: a failure in any.
    Columns: *by, structure, `failed_patients` of `failed_of`, and the bounds of the share,
    `failed_low` and `failed_high`. Empty without Dice.
    """
    keys = [*by, "structure"]
    dice = rows[rows["metric"] == "dice"].dropna(subset=["value"])
    dice = dice.assign(failed=dice["value"] < FAILURE)
    either = pd.concat([dice.assign(last=False), dice.assign(last=True, structure=MEAN)])
    of_patients = either.groupby([*by, "last", "structure", "patient"])["failed"].any()
    table = of_patients.groupby([*by, "last", "structure"]).agg(["sum", "size"]).astype(int)
    found = [Failed(*map(int, numbers)) for numbers in table.itertuples(index=False)]
    table = table.set_axis(["failed_patients", "failed_of"], axis=1)
    table["failed_low"] = [each.low for each in found]
    table["failed_high"] = [each.high for each in found]
    return table.reset_index()[[*keys, *table.columns]]


def failure_profile(rows: pd.DataFrame, *, by: Sequence[str] = KEYS) -> pd.DataFrame:
    """Shares by these columns of the rows, each with the number of values behind it.

    | column        | share with                                                            |
    |---------------|-----------------------------------------------------------------------|
    | `failed`      | a Dice below 0.1, of the cases that have the structure                |
    | `empty`       | nothing predicted where the reference has the structure               |
    | `false_alarm` | the structure predicted, of the cases that do not have it             |
    | `false_blobs` | a component of the prediction that is on no component of the reference|

    A patient's cases, seeds and folds are averaged first, so each patient weighs as much. Beside
    each is `<column>_n`, the values in which its metric is defined.
    """
    keys = list(by)
    table = rows[keys].drop_duplicates().sort_values(keys).set_index(keys)
    for column, (metric, is_failure) in SIGNS.items():
        values = rows[rows["metric"] == metric].dropna(subset=["value"])
        if values.empty:
            continue
        failed = values.assign(failed=is_failure(values["value"]))
        of_patients = failed.groupby([*keys, "structure", "patient"])["failed"].mean()
        table[column] = of_patients.groupby(keys).mean()
        table[f"{column}_n"] = failed.groupby(keys).size()
    counts = [name for name in table if str(name).endswith("_n")]
    return table.fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, int)).reset_index()
