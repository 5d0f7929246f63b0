"""Seconds of 10,000 resamples of 1,000 rows: the bootstrap over patients, on one thread.

`OMP_NUM_THREADS=1 python bench/intervals.py [--rows 1000] [--resamples 10000] [--repeats 5]` times
one mean whose rows are a patient each, one whose patients have four, and the whole site table of as
many rows with three structures and five metrics. Printed are medians; the first line checks itself
against a plain loop over resamples, which is timed on a hundredth of them.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from segshift.results import bootstrap_means, site_table

STRUCTURES, METRICS = ("liver", "kidney", "tumour"), ("dice", "hd95_mm", "nsd_2mm", "iou", "ece")


def main(*, rows: int, resamples: int, repeats: int) -> None:
    """Print the table."""
    values = np.random.default_rng(0).beta(8, 2, rows)
    alone = [str(i) for i in range(rows)]
    fours = [str(i // 4) for i in range(rows)]
    interval = bootstrap_means(values, alone, resamples=resamples)
    few = max(resamples // 100, 1)
    loop = seconds(lambda: looped(values, few), 1) * resamples / few
    print(f"{rows} rows, {resamples} resamples, median of {repeats}")
    print(f"interval {interval.low:.4f} to {interval.high:.4f}; a loop: {looped(values, few)}\n")
    print("| what | seconds |\n|---|---|")
    jobs: dict[str, Callable[[], object]] = {
        "mean, a patient per row": lambda: bootstrap_means(values, alone, resamples=resamples),
        "mean, four rows per patient": lambda: bootstrap_means(values, fours, resamples=resamples),
        "site table, 3 structures x 5 metrics": lambda: site_table(table(values)),
    }
    for name, job in jobs.items():
        print(f"| {name} | {seconds(job, repeats):.3f} |")
    print(f"| the same mean in a loop | {loop:.3f} |")


def looped(values: np.ndarray, resamples: int) -> str:
    """The interval by a loop over resamples, without the correction for few patients."""
    random = np.random.default_rng(1)
    means = [random.choice(values, len(values)).mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{low:.4f} to {high:.4f}"


def table(values: np.ndarray) -> pd.DataFrame:
    """As many cases as values, with a row per structure and metric."""
    keys = pd.MultiIndex.from_product([range(len(values)), STRUCTURES, METRICS])
    rows = keys.to_frame(index=False, name=["case", "structure", "metric"])
    rows["value"] = values[rows["case"]]
    rows["case"] = rows["case"].astype(str)
    own = {"run": "r", "set": "s", "site": "x", "corruption": "", "severity": 0, "rater": ""}
    flags = {"postprocessed": False, "reference_empty": False}
    return rows.assign(patient=rows["case"], **own, **flags)


def seconds(job: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds."""
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    main(**vars(parser.parse_args()))
