"""What a discovery reads: linear effects taken out all at once, and the files it is bound to."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_fair.data import sha256
from monai_fair.data.artifacts import write_tensors
from monai_fair.errors import ArtifactError
from monai_fair.subgroups import Representation
from monai_fair.subgroups.discovery_inputs import input_hashes, read_cohort, read_representations
from monai_fair.subgroups.row_rules import fit_rule

Cohort = Any  # of conftest, which tests cannot import


def test_size_and_nuisances_are_taken_out_together(registered_cohort: Cohort) -> None:
    """One after the other, what was taken out first would come back, because the two are correlated."""
    cohort = read_cohort(registered_cohort.registered, registered_cohort.manifest)
    options = {
        "root": registered_cohort.root,
        "mask": registered_cohort.root / "template_desc-brain_mask.nii.gz",
        "fit_splits": ("train", "val"),
        "block_mm": 8.0,
        "embeddings": None,
        "num_workers": 1,
    }
    plain = read_representations(cohort, ["log_jacobian"], **options, keep_scale=True).representations[0].values
    rows = read_representations(cohort, ["log_jacobian"], **options, keep_scale=False, nuisances=["sex", "age"])
    fitted = cohort.fitted(("train", "val"))
    left = rows.representations[0].values[fitted]
    sex = cohort.table["sex"] == "male"
    for effect in (plain.mean(axis=1), sex.to_numpy(float), cohort.table["age"].astype(float).to_numpy()):
        own = effect[fitted] - effect[fitted].mean()
        np.testing.assert_allclose(own @ (left - left.mean(axis=0)) / own.std(), 0, atol=1e-8)
    np.testing.assert_allclose(left.mean(axis=0), plain[fitted].mean(axis=0), atol=1e-10)


@pytest.mark.parametrize(("splits", "told"), [(("train", "val"), 1), (("val",), 0)])
def test_features_of_a_classifier_come_with_a_note(
    registered_cohort: Cohort, tmp_path: Path, splits: tuple[str, ...], told: int
) -> None:
    cohort = read_cohort(registered_cohort.registered, registered_cohort.manifest)
    subjects, values = cohort.subjects[::-1], np.arange(2.0 * len(cohort.subjects)).reshape(-1, 2)
    pd.DataFrame({"subject_id": subjects}).to_csv(tmp_path / "predictions.csv", index=False)
    path = tmp_path / "features.safetensors"
    write_tensors(path, {"features": values}, {"predictions_sha256": sha256(tmp_path / "predictions.csv")})
    found = read_representations(
        cohort, ["embeddings"], root=tmp_path, mask=None, fit_splits=splits, block_mm=8.0, keep_scale=False,
        embeddings=path, num_workers=1,
    )  # fmt: skip
    np.testing.assert_array_equal(found.representations[0].values, values[::-1])
    assert found.notes == told * [
        "embeddings: features of a classifier tell the labels of rows it was trained on; where these are fitted, "
        "subgroups may be labels"
    ]


def test_a_discovery_is_bound_to_all_that_it_reads(registered_cohort: Cohort, tmp_path: Path) -> None:
    cohort = read_cohort(registered_cohort.registered, registered_cohort.manifest)
    (tmp_path / "features.safetensors").write_bytes(b"features")
    (tmp_path / "predictions.csv").write_text("subject_id\n")
    (tmp_path / "manifest.csv").write_text("another file of this name\n")
    found = input_hashes(
        cohort, registered_cohort.manifest, representations=["codes", "embeddings", "regional_volumes"],
        embeddings=tmp_path / "features.safetensors", mask=None, regions=tmp_path / "manifest.csv",
    )  # fmt: skip
    assert found == {
        "manifest.csv": sha256(registered_cohort.manifest),
        "registration.csv": sha256(cohort.folder / "registration.csv"),
        "codes.safetensors": sha256(cohort.folder / "codes.safetensors"),
        "features.safetensors": sha256(tmp_path / "features.safetensors"),
        "manifest.csv (2)": sha256(tmp_path / "manifest.csv"),
        "predictions.csv": sha256(tmp_path / "predictions.csv"),
    }


def test_files_that_are_not_there_are_named_at_once(registered_cohort: Cohort, tmp_path: Path) -> None:
    cohort = read_cohort(registered_cohort.registered, registered_cohort.manifest)
    (tmp_path / "features.safetensors").write_bytes(b"features")
    with pytest.raises(ArtifactError) as caught:
        input_hashes(
            cohort, registered_cohort.manifest, representations=["embeddings", "regional_volumes"],
            embeddings=tmp_path / "features.safetensors", mask=None, regions=tmp_path / "none_dseg.nii.gz",
        )  # fmt: skip
    assert str(caught.value) == (
        "inputs: 2 problems\n"
        f"  1. expected {tmp_path / 'none_dseg.nii.gz'}, found none\n"
        f"  2. expected {tmp_path / 'predictions.csv'}, found none"
    )


def test_intensities_are_bound_to_the_images(registered_cohort: Cohort, tmp_path: Path) -> None:
    cohort = read_cohort(registered_cohort.registered, registered_cohort.manifest)
    root = shutil.copytree(registered_cohort.root, tmp_path / "root")

    def hashes(kind: str) -> dict[str, str]:
        own = {"representations": [kind], "embeddings": None, "mask": None, "root": root}
        return input_hashes(cohort, registered_cohort.manifest, **own)

    before = hashes("intensity")
    image = root / cohort.table["image"].iloc[-1]
    image.write_bytes(image.read_bytes() + b" ")
    changed = hashes("intensity")
    assert {name for name in before if before[name] != changed[name]} == {"images"}
    image.unlink()
    assert "images" not in hashes("log_jacobian")
    with pytest.raises(ArtifactError, match=f"inputs: expected {image}, found none"):
        hashes("intensity")


def test_a_column_that_no_fitted_subject_has_is_said(registered_cohort: Cohort) -> None:
    rows = Representation("log_jacobian", ["a", "b", "c"], np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, 5.0]]))
    rule, notes = fit_rule(rows, np.empty((3, 0)), np.array([True, True, False]), keep_scale=True)
    np.testing.assert_array_equal(rule.rows(rows.values, np.empty((3, 0))), [[1, 0], [3, 0], [2, 5]])
    assert notes == [
        "log_jacobian: 3 of 6 block means are undefined, in 3 subjects, and took the mean of the fitted subjects, or 0 "
        "where none of them has a value"
    ]
