"""Every public set goes from its folder to a trained epoch with the commands of docs/data.md."""

import re
import shlex

import pytest
from conftest import REAL_DATA, ROOT, TINY_TRAINING, composed

from segshift import run
from segshift.cli import main
from segshift.results import read_rows

PAGE = (ROOT / "docs" / "data.md").read_text()
SECTION = PAGE.split("## Public sets")[1].split("```")[1]
TRAINED = {"hippocampus.csv": {"anterior", "posterior"}, "axons.csv": {"axon", "myelin"},
           "nuclei": {"nucleus"}}  # fmt: skip


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_public_set_trains(name, tmp_path, monkeypatch, no_page):
    monkeypatch.chdir(tmp_path)
    commands = [
        shlex.split(line.replace("../shared/data", str(REAL_DATA)))
        for line in SECTION.splitlines()
        if line.startswith(("segshift", "python"))
    ]
    imports = {c[-1]: c[1:] for c in commands if c[2:3] == ["import"]}
    if name in imports:
        main(imports[name])
    (training,) = [c[2:] for c in commands if c[0] == "python" and name in " ".join(c)]
    # Large patches: small ones cost a call of the network for each of many windows.
    patch = "[128,128]" if "model=unet2d" in training else "[40,56,40]"
    tiny = (f"plan.patch={patch}", "plan.batch=2", "task.metrics=${dice_only}", "store=store",
            "+dice_only=[{_target_: segshift.metrics.Dice}]")  # fmt: skip
    run.train(composed(*training, *TINY_TRAINING, *tiny), tmp_path / "run", command="", choices={})
    assert set(read_rows(tmp_path / "run" / "rows.csv")["structure"]) == TRAINED[name]


@pytest.mark.real_data
def test_dicom_imports_and_is_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["cohort", "import", "dicom", str(REAL_DATA / "dicom"), "-o", "dicom.csv"])
    with pytest.raises(SystemExit) as ended:
        main(["cohort", "check", "dicom.csv", "--allow-outside"])
    assert ended.value.code == 1  # one patient at a site
    assert re.search(r"no\s+label", capsys.readouterr().out)
