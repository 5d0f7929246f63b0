"""How often a run fails outright, per site; a pure function of rows.

A mean hides whether all cases are a little worse or a few are lost. What the rows have no metric
for has no column: `dice` for failures, `volume_difference_relative` for empty predictions,
`lesion_false_positives` for false blobs.
"""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

FAILURE = 0.1  # an overlap below is a total failure: the structure was not found
MISS = -2.0  # what volume_difference_relative says of an empty prediction, and of nothing else

# Column of the profile: the metric that tells, and which of its values count.
SIGNS: Mapping[str, tuple[str, Callable[["pd.Series[float]"], "pd.Series[bool]"]]] = {
    "failed": ("dice", lambda values: values < FAILURE),
    "empty": ("volume_difference_relative", lambda values: values <= MISS),
    "false_blobs": ("lesion_false_positives", lambda values: values > 0),
}


def failure_profile(
    rows: pd.DataFrame, *, by: Sequence[str] = ("run", "set", "site")
) -> pd.DataFrame:
    """Shares by these columns of the rows, each with the number of values behind it.

    | column        | share of the values (a structure of a case) with                      |
    |---------------|-----------------------------------------------------------------------|
    | `failed`      | a Dice below 0.1; a false positive on an empty reference is one, too  |
    | `empty`       | nothing predicted where the reference has the structure               |
    | `false_blobs` | a component of the prediction that is on no component of the reference|

    Beside each is `<column>_n`, the values in which its metric is defined.
    """
    keys = list(by)
    table = rows[keys].drop_duplicates().sort_values(keys).set_index(keys)
    for column, (metric, is_failure) in SIGNS.items():
        values = rows[rows["metric"] == metric].dropna(subset=["value"])
        if values.empty:
            continue
        by_site = is_failure(values["value"]).groupby([values[key] for key in keys])
        table[column] = by_site.mean()
        table[f"{column}_n"] = by_site.size()
    counts = [name for name in table if str(name).endswith("_n")]
    return table.fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, int)).reset_index()
