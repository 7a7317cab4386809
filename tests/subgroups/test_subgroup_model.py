"""A discovery as a file: the same subjects get the same subgroups, new ones what discover would have given them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from monai_fair.data import read_map, sha256, write_volume
from monai_fair.data.artifacts import read_json, read_tensors, write_json, write_tensors
from monai_fair.errors import ArtifactError, ManifestError, MonaiFairError
from monai_fair.geometry import Grid
from monai_fair.subgroups import assign_files, discover_files, read_discovered, read_subgroup_model
from monai_fair.subgroups.assign_verb import assign
from monai_fair.subgroups.subgroup_model import SUBGROUP_MODEL, write_subgroup_model

Cohort = Any  # of conftest, which tests cannot import
Make = Callable[..., Cohort]
FAILED = ["sub-077", "sub-078"]
SHAPE = (10, 12, 10)
COLUMNS = ["subject_id", "subgroup", "membership_S1", "membership_S2", "reason"]


@pytest.fixture(scope="module")
def found(registered_cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A discovery with the size of the brain and the age of the subject taken out."""
    out = tmp_path_factory.mktemp("found") / "subgroups"
    discover_files(**registered_cohort.options(out), nuisances=["age"], methods=("local",))
    assert read_json(out / "discovery.json", "discovery")["claimed"]
    return out


def options(cohort: Cohort, discovery: Path, out: Path) -> dict[str, Any]:
    return {
        "discovery": discovery,
        "registered": cohort.registered,
        "manifest": cohort.manifest,
        "out": out,
        "root": cohort.root,
    }


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, dtype={"reason": str, "subgroup": str})


def parts(path: Path) -> dict[str, Any]:
    """The numbers and the header of a file, which stand there in any order."""
    tensors, metadata = read_tensors(path)
    return {name: (value.dtype.str, value.tolist()) for name, value in tensors.items()} | metadata


def compare(table: pd.DataFrame, discovery: Path) -> None:
    """Each assigned subject has its row of the discovery."""
    own = pd.read_csv(discovery / "subgroups.csv").set_index("subject_id").loc[table["subject_id"]]
    names = [name for name in own if name.startswith("membership")]
    assert table["subgroup"].tolist() == own["subgroup"].tolist()
    assert_allclose(table[names].astype(float), own[names], rtol=0, atol=1e-12)


def test_the_same_subjects_get_the_same_probabilities(found: Path, registered_cohort: Cohort, tmp_path: Path) -> None:
    table = read(assign_files(**options(registered_cohort, found, tmp_path / "new.csv")))
    assert table.columns.tolist() == COLUMNS
    assert sorted(table["subject_id"]) == sorted(registered_cohort.table["subject_id"])
    assert table["subject_id"].tolist()[-2:] == FAILED
    assert table["reason"].tolist() == [""] * 78 + ["2.00 % of the brain folds", "not in registration.csv"]
    assert (table.iloc[-2:, 1:4] == "").all(axis=None)
    compare(table[:-2], found)


@pytest.mark.parametrize(
    "asked",
    [
        {"representations": ("log_jacobian",), "methods": ("mixture",), "keep_scale": True, "min_stability": -1.0},
        {"representations": ("regional_volumes",), "methods": ("local",)},
        {"representations": ("log_jacobian",), "methods": ("local",), "nuisances": ["site"], "block_mm": 16.0},
        {"methods": ("local",), "nuisances": ["site"], "keep_scale": True, "alpha": 0.99, "min_stability": -1.0},
    ],
    ids=["mixture", "regions", "site", "site and size"],
)
def test_every_kind_of_model_is_stored(own_cohort: Make, tmp_path: Path, asked: dict[str, Any]) -> None:
    cohort = own_cohort()
    rng = np.random.default_rng(3)
    cohort.table.assign(site=rng.choice(["A", "B", "C"], len(cohort.table))).to_csv(cohort.manifest, index=False)
    for row, subject in enumerate(cohort.table["subject_id"]):  # a cloud of its own, for the mixture
        path = cohort.registered / subject / f"{subject}_desc-logdetjacobian_map.nii.gz"
        values = cohort.maps[subject] + 4.0 * cohort.member[row] * ("mixture" in asked["methods"])
        values[0, 0, 0], values[5, 5, 5] = values[5, 5, 5], np.nan if row == 3 else values[5, 5, 5]
        write_volume(path, values.astype(np.float32), read_map(path).grid)
    labels = np.ones(SHAPE, np.int32)
    labels[6:9, 5:8, 3:6], labels[:3], labels[3:6, :6] = 2, 3, 4
    if "regional_volumes" in asked.get("representations", ()):
        asked = asked | {"regions": write_volume(tmp_path / "parts.nii.gz", labels, Grid.isotropic(SHAPE, 8.0))}
    discover_files(**cohort.options(tmp_path / "found"), **asked)
    assert read_json(tmp_path / "found" / "discovery.json", "discovery")["claimed"]
    given = {"regions": asked["regions"]} if "regions" in asked else {}
    table = read(assign_files(**options(cohort, tmp_path / "found", tmp_path / "new.csv"), **given))
    compare(table[:-2], tmp_path / "found")


def test_embeddings_and_codes_are_assigned_without_a_grid(own_cohort: Make, tmp_path: Path) -> None:
    cohort = own_cohort()
    rng = np.random.default_rng(4)
    values = rng.normal(size=(len(cohort.table), 3)) + 8.0 * cohort.member[:, None]
    clip = cohort.table[["subject_id"]].assign(**{name: values[:, place] for place, name in enumerate("abc")})
    clip.to_csv(tmp_path / "clip.csv", index=False)
    discover_files(
        **cohort.options(tmp_path / "found"), representations=("embeddings",), embeddings=tmp_path / "clip.csv"
    )
    own = options(cohort, tmp_path / "found", tmp_path / "new.csv")
    compare(read(assign_files(**own, embeddings=tmp_path / "clip.csv"))[:-2], tmp_path / "found")
    with pytest.raises(MonaiFairError, match="embeddings: expected a file with, and only with, the representation"):
        assign_files(**own)
    clip.assign(d=0.0).to_csv(tmp_path / "wide.csv", index=False)
    with pytest.raises(ArtifactError, match="expected 3 numbers of embeddings per subject, got 4; give subjects"):
        assign_files(**own, embeddings=tmp_path / "wide.csv")


def test_new_subjects_are_assigned_as_in_the_test_part(found: Path, own_cohort: Make, tmp_path: Path) -> None:
    """A discovery that saw them as test subjects; another that never saw them, and is asked afterwards."""
    cohort = own_cohort()
    new = cohort.table["subject_id"].isin(cohort.table.query("split == 'test'")["subject_id"][:10])
    rest, later = tmp_path / "rest.csv", tmp_path / "later.csv"
    cohort.table[~new].to_csv(rest, index=False)
    discover_files(**cohort.options(tmp_path / "less") | {"manifest": rest}, nuisances=["age"], methods=("local",))
    less = read_discovered(tmp_path / "less")
    assert not set(cohort.table["subject_id"][new]) & set(pd.read_csv(tmp_path / "less" / "subgroups.csv").iloc[:, 0])
    cohort.table.loc[new, ["subject_id", "image", "age"]].to_csv(later, index=False)  # neither split nor label
    table = read(
        assign_files(**options(cohort, tmp_path / "less", tmp_path / "new.csv") | {"manifest": later}, num_workers=1)
    )
    assert len(table) == 10
    compare(table, found)
    assert less.names == ["S1", "S2"]


def test_a_subject_whose_nuisance_is_not_known_is_a_row_with_a_reason(
    registered_cohort: Cohort, found: Path, tmp_path: Path
) -> None:
    changed = registered_cohort.table.astype(str)
    changed.loc[[0, 1], "age"] = ["", "old"]
    changed.to_csv(tmp_path / "manifest.csv", index=False)
    own = options(registered_cohort, found, tmp_path / "new.csv") | {"manifest": tmp_path / "manifest.csv"}
    table = read(assign_files(**own))
    assert table["reason"][:2].tolist() == [
        "nuisance 'age': expected a number, got ''",
        "nuisance 'age': expected a number, got 'old'",
    ]
    assert table["subgroup"][:2].tolist() == ["", ""]
    compare(table[2:-2], found)
    changed.drop(columns="age").to_csv(tmp_path / "manifest.csv", index=False)
    table = read(assign_files(**own))
    assert (table["subgroup"] == "").all()
    assert len(table) == 80


def test_nothing_claimed_is_nothing_stored(own_cohort: Make, tmp_path: Path) -> None:
    cohort = own_cohort(effect=0.0)
    discover_files(**cohort.options(tmp_path / "found"), methods=("mixture",))
    assert not (tmp_path / "found" / SUBGROUP_MODEL).exists()
    assert read_json(tmp_path / "found" / "discovery.json", "discovery")["model_sha256"] is None
    with pytest.raises(ArtifactError) as caught:
        assign_files(**options(cohort, tmp_path / "found", tmp_path / "new.csv"))
    assert str(caught.value) == (
        f"{tmp_path / 'found' / 'discovery.json'}: expected subgroups that are claimed, got none; where nothing is "
        "claimed there is no subgroup to assign"
    )
    assert not (tmp_path / "new.csv").exists()


def test_a_folder_of_before_is_completed(own_cohort: Make, tmp_path: Path) -> None:
    cohort, out = own_cohort(), tmp_path / "found"
    asked = {**cohort.options(out), "methods": ("local",)}
    discover_files(**asked)
    table, model = (out / "subgroups.csv").read_bytes(), parts(out / SUBGROUP_MODEL)
    record = read_json(out / "discovery.json", "discovery")
    del record["model_sha256"]
    write_json(out / "discovery.json", "discovery", record)
    (out / SUBGROUP_MODEL).unlink()
    with pytest.raises(ArtifactError, match=r"expected subgroup_model\.safetensors, found none; run discover again"):
        read_discovered(out)
    discover_files(**asked)
    assert (out / "subgroups.csv").read_bytes() == table
    assert parts(out / SUBGROUP_MODEL) == model
    before = (out / "discovery.json").stat().st_mtime_ns
    discover_files(**asked)
    assert (out / "discovery.json").stat().st_mtime_ns == before
    (out / SUBGROUP_MODEL).write_bytes(b"damaged")
    discover_files(**asked)
    assert parts(out / SUBGROUP_MODEL) == model


def test_another_grid_or_registration_is_refused(found: Path, own_cohort: Make, tmp_path: Path) -> None:
    cohort = own_cohort()
    own = options(cohort, found, tmp_path / "new.csv")
    mask = cohort.root / "template_desc-brain_mask.nii.gz"
    smaller = read_map(mask).array > 0
    smaller[1] = False
    other = write_volume(tmp_path / "other.nii.gz", smaller, Grid.isotropic(SHAPE, 8.0))
    with pytest.raises(ArtifactError) as caught:
        assign_files(**own, template_mask=other)
    assert str(caught.value) == (
        f"assign: {other}: expected the mask of the discovery's template (SHA-256 {sha256(mask)[:12]}...), got another "
        f"({sha256(other)[:12]}...); give the template of the discovery"
    )
    write_json(
        cohort.registered / "registration.json", "registration", {"settings": {"smoothness": 0.1, "max_folds": 1}}
    )
    assign_files(**own)  # nothing is known of the registration behind the discovery
    discover_files(**cohort.options(tmp_path / "told"))
    assign_files(**own | {"discovery": tmp_path / "told"})
    write_json(
        cohort.registered / "registration.json", "registration", {"settings": {"smoothness": 0.2, "max_folds": 2}}
    )
    with pytest.raises(ArtifactError) as caught:
        assign_files(**own | {"discovery": tmp_path / "told"})
    assert str(caught.value) == (
        f"assign: {cohort.registered}: smoothness: expected 0.1 as in the discovery, got 0.2; register with the model "
        "and the settings of the discovery"
    )


def test_two_rows_of_a_subject_are_refused(found: Path, registered_cohort: Cohort, tmp_path: Path) -> None:
    twice = pd.concat([registered_cohort.table, registered_cohort.table[:1].assign(image="x.nii")])
    twice.to_csv(tmp_path / "twice.csv", index=False)
    own = options(registered_cohort, found, tmp_path / "new.csv") | {"manifest": tmp_path / "twice.csv"}
    with pytest.raises(ManifestError, match="expected one row for each subject, 1 have more: sub-000; keep one"):
        assign_files(**own)


def damaged(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        tensors, metadata = read_tensors(path)
        content = json.loads(metadata["content"])
        change(tensors, content)
        write_tensors(path, tensors, metadata | {"content": json.dumps(content)})

    return apply


def of_another_kind(path: Path) -> None:
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, metadata | {"kind": "codes"})


def of_another_version(path: Path) -> None:
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, metadata | {"version": "2"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (of_another_kind, "expected a file of kind 'subgroup_model', version 1, got 'codes', version 1"),
        (of_another_version, "got 'subgroup_model', version 2"),
        (damaged(lambda tensors, _: tensors.pop("axis")), "expected a whole model, got one without 'axis'"),
        (damaged(lambda _, content: content.update(method="forest")), "got one without 'forest'"),
        (
            damaged(lambda _, content: content.update(representation="tags")),
            "expected a representation of .* got 'tags'",
        ),
        (damaged(lambda tensors, _: tensors.update(order=np.array([0, 0]))), "order: expected each of 0 to 1 once"),
        (damaged(lambda _, content: content.update(categories=[])), "categories: expected those of 1 nuisances, got 0"),
        (damaged(lambda tensors, _: tensors.update(means=np.array([0.0, np.nan]))), "expected finite numbers"),
        (
            damaged(lambda tensors, _: tensors.update(row_coefficients=tensors["row_coefficients"][1:])),
            "coefficients: expected one row for each of 640 columns",
        ),
        (lambda path: path.write_bytes(b"pickle"), "expected a readable safetensors file"),
    ],
)
def test_what_is_no_model_is_refused(found: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    path = tmp_path / SUBGROUP_MODEL
    path.write_bytes((found / SUBGROUP_MODEL).read_bytes())
    spoil(path)
    with pytest.raises(ArtifactError, match=message):
        read_subgroup_model(path)


def test_a_model_of_another_discovery_is_refused(found: Path, tmp_path: Path) -> None:
    (tmp_path / "discovery.json").write_bytes((found / "discovery.json").read_bytes())
    tensors, metadata = read_tensors(found / SUBGROUP_MODEL)
    content = json.loads(metadata["content"]) | {"key": "of another"}
    write_tensors(tmp_path / SUBGROUP_MODEL, tensors, metadata | {"content": json.dumps(content)})
    with pytest.raises(ArtifactError, match=r"expected the model of discovery\.json beside it, got that of another"):
        read_discovered(tmp_path)


def test_a_model_is_written_as_it_was_read(found: Path, tmp_path: Path) -> None:
    model = read_subgroup_model(found / SUBGROUP_MODEL)
    write_subgroup_model(tmp_path / "again.safetensors", model)
    assert parts(tmp_path / "again.safetensors") == parts(found / SUBGROUP_MODEL)
    assert (model.representation, model.nuisances, model.categories) == ("log_jacobian", ("age",), ((),))


def test_the_verb_ends_with_the_table(found: Path, registered_cohort: Cohort, tmp_path: Path) -> None:
    own = {name: str(value) for name, value in options(registered_cohort, found, tmp_path / "new.csv").items()}
    lines = assign(**own).splitlines()
    counts = read(tmp_path / "new.csv")["subgroup"].value_counts()
    assert lines == [
        f"80 subjects; S1: {counts['S1']}, S2: {counts['S2']}; 2 without",
        "without: sub-077: 2.00 % of the brain folds",
        "without: sub-078: not in registration.csv",
        str(tmp_path / "new.csv"),
    ]
