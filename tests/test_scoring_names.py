"""Whose prediction a file is: by ends of paths, never another patient's, and loud where unclear."""

from pathlib import Path

import pytest

from segshift.cohort import Annotation, Case
from segshift.errors import InputError
from segshift.scoring.names import by_case, image_files


def case(name: str, label: str) -> Case:
    path = Path("/data", f"{label}.nii.gz")
    return Case(id=name, patient=name, site="here", images=(path,), annotation=Annotation(path))


def below(*patients: str) -> list[Case]:
    """References in a folder of each patient, called as `evaluate.py references=ref` calls them."""
    return [case(f"{patient}-seg", f"ref/{patient}/seg") for patient in patients]


def listed(*patients: str) -> list[Case]:
    """The same files in a manifest that names the patients."""
    return [case(patient, f"ref/{patient}/seg") for patient in patients]


def matched(predictions: list[str], cases: list[Case]) -> dict[str, str]:
    files = {name: Path(name) for name in predictions}
    found, extra = by_case(files, cases)
    assert {*found.values(), *extra} == {*files.values()}
    return {name: str(path) for name, path in found.items()}


@pytest.mark.parametrize(
    ("predictions", "cases", "expected"),
    [
        (["p1/seg"], below("p0"), {}),
        (["p1/seg"], listed("p0"), {}),
        (["p0/seg", "p2/seg"], below("p0", "p1", "p2"), {"p0-seg": "p0/seg", "p2-seg": "p2/seg"}),
        (["p0/seg", "p1/seg"], listed("p0", "p1"), {"p0": "p0/seg", "p1": "p1/seg"}),
        (["fold/p0/seg"], below("p0", "p1"), {"p0-seg": "fold/p0/seg"}),
        (["fold/p0/seg"], listed("p0", "p1"), {"p0": "fold/p0/seg"}),
        (["p0-seg"], below("p0", "p1"), {"p0-seg": "p0-seg"}),
        (["p0/mask", "p1/mask"], listed("p0", "p1"), {"p0": "p0/mask", "p1": "p1/mask"}),
        (["p0/seg", "p0/image"], listed("p0"), {"p0": "p0/seg"}),
        (["seg"], below("p0"), {"p0-seg": "seg"}),
        (["seg"], below("p0", "p1"), {}),
        (["p0/seg", "seg"], below("p0", "p1"), {"p0-seg": "p0/seg"}),
        (["p0/seg"], [case("x", "a/p0/seg"), case("y", "b/p0/seg")], {}),
        (["fold/a_0000"], [case("a", "a")], {"a": "fold/a_0000"}),
        (["p0/ct"], [case("p0/ct_0000", "x")], {"p0/ct_0000": "p0/ct"}),
        (["1", "a/1"], [case("1", "1"), case("a-1", "a/1")], {"1": "1", "a-1": "a/1"}),
        (["a/1"], [case("1", "1"), case("a-1", "a/1")], {"a-1": "a/1"}),
        (["a", "processed/a"], [case("a", "a")], {"a": "a"}),
    ],
)
def test_a_file_is_the_prediction_of(predictions, cases, expected):
    assert matched(predictions, cases) == expected


@pytest.mark.parametrize(
    ("predictions", "cases"),
    [
        (["one/a", "two/a"], [case("a", "a")]),
        (["p0/liver", "p0/kidney"], listed("p0")),
    ],
)
def test_a_case_with_several_predictions_is_refused(predictions, cases):
    with pytest.raises(InputError, match="has several predictions"):
        matched(predictions, cases)


def test_a_file_of_two_cases_is_refused():
    """By the one's id and by the other's label."""
    with pytest.raises(InputError, match="of 'a' and of 'b'"):
        matched(["b"], [case("a", "labels/b"), case("b", "labels/a")])


def test_nothing_hidden_is_a_file_and_a_mask_stands_before_its_dicom(tmp_path):
    for name in (
        "a.nii.gz",
        ".b.nii.gz",
        ".ipynb_checkpoints/a.nii.gz",
        "deeper/.x/c.nii.gz",
        "uncertainty/a_entropy.nii.gz",
        "probabilities/a_liver.nii.gz",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a.dcm").touch()
    assert image_files(tmp_path) == {"a": tmp_path / "a.nii.gz"}
