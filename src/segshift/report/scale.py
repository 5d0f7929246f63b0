"""The scale that pictures without a physical size were brought to, by evaluation set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segshift.report.run_files import read_json
from segshift.results import SCALE, read_cases


def scale_section(folder: Path) -> Mapping[str, Any] | None:
    """What the plan says, and of each set its factors and how many cases came to them how.

    None of a run that takes pixels as they are, or whose cases have no scale yet.
    """
    plan = folder / "plan.json"
    scale = read_json(plan).get("scale") if plan.exists() else None
    if not scale or not (folder / "cases.csv").exists():
        return None
    cases = read_cases(folder / "cases.csv")
    factor, source = SCALE
    if factor not in cases:
        return None
    lines = []
    for name, own in cases[cases[factor] != ""].groupby("set"):
        factors = own[factor].astype(float)
        low, middle, high = (f"{factors.quantile(share):.3g}" for share in (0, 0.5, 1))
        sources = own[source].value_counts().sort_index().to_dict()
        lines.append({"set": name, "low": low, "median": middle, "high": high, "sources": sources})
    return {"by": scale["by"], "typical_px": f"{scale['typical_px']:.4g}", "lines": lines}
