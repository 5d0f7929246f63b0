"""The benchmark of the metrics runs, and both sides agree; how fast they are is not tested."""

from test_bench import printed, table


def test_metrics_are_measured_and_agree_with_monais():
    rows = table(printed("metrics.py", "--size", "40", "40", "32", "--repeats=1"))
    ours, theirs, ratio, difference = rows[-1]
    assert float(ours.split()[0]) >= 0
    assert float(theirs.split()[0]) > 0
    assert float(ratio) > 0
    assert float(difference) < 1e-5
