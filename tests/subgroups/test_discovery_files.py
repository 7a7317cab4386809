"""A folder of a registration in, a folder of subgroups out: the contract, restarts, and what cannot be used."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from monai_fair.__main__ import discover
from monai_fair.data import read_map, sha256, write_volume
from monai_fair.data.artifacts import read_json
from monai_fair.errors import ArtifactError, ManifestError, MonaiFairError, RegistrationError
from monai_fair.geometry import Grid
from monai_fair.subgroups import discover_files
from monai_fair.subgroups.discovery_lines import discovery_lines

Cohort = Any  # of conftest, which tests cannot import
Make = Callable[..., Cohort]
FAILED = "sub-077"
SHAPE = (10, 12, 10)


@pytest.fixture(scope="module")
def found(registered_cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a discovery with default options."""
    out = tmp_path_factory.mktemp("found") / "subgroups"
    assert discover_files(**registered_cohort.options(out)) == out / "subgroups.csv"
    return out


def record_of(folder: Path) -> dict[str, Any]:
    return read_json(folder / "discovery.json", "discovery")


def registered_rows(cohort: Cohort) -> pd.DataFrame:
    table = cohort.table.assign(member=cohort.member)
    return table[~table["subject_id"].isin([FAILED, "sub-078"])].reset_index(drop=True)


def test_every_registered_subject_has_a_row(found: Path, registered_cohort: Cohort) -> None:
    table = pd.read_csv(found / "subgroups.csv")
    truth = registered_rows(registered_cohort)
    assert table.columns.tolist() == ["subject_id", "split", "fitted", "subgroup", "membership_S1", "membership_S2"]
    assert table["subject_id"].tolist() == truth["subject_id"].tolist()
    assert table["split"].tolist() == truth["split"].tolist()
    assert (table["fitted"] == (table["split"] != "test")).all()
    shares = table[["membership_S1", "membership_S2"]]
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert (table["subgroup"] == np.where(shares["membership_S1"] >= 0.5, "S1", "S2")).all()
    for part in (table["fitted"] == 1, table["fitted"] == 0):
        assert adjusted_rand_score(truth["member"][part], table["subgroup"][part]) > 0.8
    sizes = table.loc[table["fitted"] == 1, "subgroup"].value_counts()
    assert sizes["S1"] > sizes["S2"]


def test_the_record_says_what_was_tried_and_found(found: Path, registered_cohort: Cohort, place_mm: Any) -> None:
    record, table = record_of(found), pd.read_csv(found / "subgroups.csv")
    assert (record["claimed"], record["chosen"], record["alpha"], record["n"], record["n_fitted"]) == (
        True, 0, 0.05, 78, 60,
    )  # fmt: skip
    assert record["failed"] == {FAILED: "2.00 % of the brain folds", "sub-078": "not in registration.csv"}
    keys = ["representation", "method", "n_components", "p", "p_holm", "valley_p", "stability", "sizes", "reason"]
    assert [list(candidate) for candidate in record["candidates"]] == [keys, keys]
    assert [candidate["method"] for candidate in record["candidates"]] == ["local", "mixture"]
    assert record["candidates"][0]["p"] == 1 / 200
    assert record["candidates"][0]["p_holm"] == 2 / 200
    assert np.linalg.norm(np.subtract(record["place"]["world_mm"], place_mm)) <= 8.0
    assert np.abs(np.subtract(record["place"]["voxel"], [7, 6, 4])).max() <= 1
    assert record["place"]["radius_mm"] == 20.0
    for group in record["subgroups"]:
        own = table[table["subgroup"] == group["name"]]
        assert group["n_by_split"] == {part: int((own["split"] == part).sum()) for part in ("train", "val", "test")}
        fitted = own[own["fitted"] == 1].set_index("subject_id")[f"membership_{group['name']}"]
        assert group["n_fitted"] == len(fitted)
        assert len(group["typical"]) == 5
        assert fitted[group["typical"]].min() >= fitted.drop(group["typical"]).max()
    assert record["inputs"] == {
        "manifest.csv": sha256(registered_cohort.manifest),
        "registration.csv": sha256(registered_cohort.registered / "registration.csv"),
        "template_desc-brain_mask.nii.gz": sha256(registered_cohort.root / "template_desc-brain_mask.nii.gz"),
    }
    assert str(registered_cohort.root) not in (found / "discovery.json").read_text()


def test_associations_are_those_of_the_written_subgroups(found: Path, registered_cohort: Cohort) -> None:
    record, table = record_of(found), pd.read_csv(found / "subgroups.csv")
    truth = registered_rows(registered_cohort)
    assert list(record["label_association"]) == ["train", "val", "test"]
    for part, measured in record["label_association"].items():
        rows = table["split"] == part
        label, first = truth["label"][rows] == 1, table["subgroup"][rows] == "S1"
        row = measured["rows"][0]
        assert (row["subgroup"], row["n"], row["n_positive"]) == ("S1", first.sum(), (label & first).sum())
        cells = [[(label & first).sum(), (~label & first).sum()], [(label & ~first).sum(), (~label & ~first).sum()]]
        assert row["p"] == pytest.approx(fisher_exact(cells).pvalue)
        assert measured["overall"]["n"] == rows.sum()
    sex, age = record["attribute_associations"]
    assert (sex["attribute"], sex["kind"], sex["measure"], sex["subgroup"]) == ("sex", "categorical", "cramers_v", None)
    assert sex["value"] > 0.8
    assert (age["attribute"], age["kind"], age["n"]) == ("age", "numeric", 78)
    assert age["value"] == pytest.approx(roc_auc_score(table["subgroup"] == age["subgroup"], truth["age"]))
    assert record["notes"] == ["code: not compared, more than 50 different values"]


def test_maps_are_means_of_fitted_subjects(found: Path, registered_cohort: Cohort) -> None:
    table = pd.read_csv(found / "subgroups.csv")
    fitted = table[table["fitted"] == 1]
    stack = np.stack([registered_cohort.maps[subject] for subject in fitted["subject_id"]]).astype(np.float64)
    first = (fitted["subgroup"] == "S1").to_numpy()
    assert record_of(found)["maps"] == {name: f"maps/{name}_desc-logjacobian_map.nii.gz" for name in ("S1", "S2")}
    difference = stack[first].mean(axis=0) - stack[~first].mean(axis=0)
    for name, expected in (("S1", difference), ("S2", -difference)):
        written = read_map(found / "maps" / f"{name}_desc-logjacobian_map.nii.gz")
        np.testing.assert_allclose(written.array, expected, atol=1e-6)
    spread = read_map(found / "maps" / "desc-spread_map.nii.gz").array
    np.testing.assert_allclose(spread, stack.std(axis=0, ddof=1), atol=1e-6)


def test_poisoned_test_subjects_leave_the_fit_bit_identical(found: Path, own_cohort: Make, tmp_path: Path) -> None:
    cohort = own_cohort()
    rng = np.random.default_rng(1)
    for subject in registered_rows(cohort).query("split == 'test'")["subject_id"]:
        path = cohort.registered / subject / f"{subject}_desc-logdetjacobian_map.nii.gz"
        write_volume(path, rng.normal(0, 50, (10, 12, 10)).astype(np.float32), read_map(path).grid)
    discover_files(**cohort.options(tmp_path / "out"))
    before, after = (folder.joinpath("subgroups.csv").read_text().splitlines() for folder in (found, tmp_path / "out"))
    changed = [old for old, new in zip(before, after, strict=True) if old != new]
    assert changed
    assert all(",test," in line for line in changed)
    one, other = record_of(found), record_of(tmp_path / "out")
    assert one["candidates"] == other["candidates"]
    for name in ("S1_desc-logjacobian", "S2_desc-logjacobian", "desc-spread"):
        assert sha256(found / "maps" / f"{name}_map.nii.gz") == sha256(tmp_path / "out" / "maps" / f"{name}_map.nii.gz")


def test_a_finished_folder_is_left_alone_and_another_one_is_refused(registered_cohort: Cohort, tmp_path: Path) -> None:
    options = registered_cohort.options(tmp_path)
    path = discover_files(**options, methods=("mixture",))
    before = {file: (file.stat().st_mtime_ns, sha256(file)) for file in tmp_path.rglob("*") if file.is_file()}
    assert discover_files(**options, methods=("mixture",)) == path
    assert before == {file: (file.stat().st_mtime_ns, sha256(file)) for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(ArtifactError) as caught:
        discover_files(**options, methods=("mixture",), alpha=0.01, seed=1)
    assert str(caught.value) == (
        f"{tmp_path / 'discovery.json'}: made with other settings or inputs (alpha: 0.05 there, 0.01 now; seed: 0 "
        "there, 1 now); choose another folder or remove it"
    )
    path.write_text("subject_id\n")  # damaged since
    discover_files(**options, methods=("mixture",))
    assert sha256(path) == before[path][1]


def test_other_representations_are_read(registered_cohort: Cohort, tmp_path: Path) -> None:
    table = registered_rows(registered_cohort)[["subject_id"]].assign(a=np.arange(78.0), b=np.arange(78.0) ** 2)
    table.to_csv(tmp_path / "clip.csv", index=False)
    names = ("displacement", "codes", "intensity", "embeddings")
    discover_files(
        **registered_cohort.options(tmp_path / "out"), representations=names, embeddings=tmp_path / "clip.csv"
    )
    record = record_of(tmp_path / "out")
    tried = [(candidate["representation"], candidate["method"]) for candidate in record["candidates"]]
    assert tried == [
        ("displacement", "local"),
        ("displacement", "mixture"),
        ("codes", "mixture"),
        ("intensity", "local"),
        ("intensity", "mixture"),
        ("embeddings", "mixture"),
    ]
    assert {"codes.safetensors", "clip.csv"} < set(record["inputs"])


def test_the_size_of_the_brain_counts_when_it_is_kept(own_cohort: Make, tmp_path: Path) -> None:
    cohort = own_cohort(effect=0.0)
    for row, subject in enumerate(cohort.table["subject_id"]):
        path = cohort.registered / subject / f"{subject}_desc-logdetjacobian_map.nii.gz"
        larger = 5.0 * cohort.member[row] + (0.02 * (row % 7))
        write_volume(path, cohort.maps[subject] - cohort.maps[subject].mean() + larger, read_map(path).grid)
    for keep, claimed in ((False, False), (True, True)):
        folder = tmp_path / str(keep)
        discover_files(**cohort.options(folder), keep_scale=keep)
        assert record_of(folder)["claimed"] == claimed
        names = set(pd.read_csv(folder / "subgroups.csv")["subgroup"])
        assert names == ({"S1", "S2"} if claimed else {"S1"})
    record = record_of(tmp_path / "False")
    assert (record["maps"], record["place"], record["chosen"]) == ({}, None, None)
    assert record["label_association"]["train"]["rows"][0]["reason"] == "every row is in the subgroup"
    assert (tmp_path / "False" / "maps" / "desc-spread_map.nii.gz").is_file()


def test_a_block_that_folds_in_one_subject_is_filled_and_said(own_cohort: Make, tmp_path: Path) -> None:
    cohort = own_cohort()
    path = cohort.registered / "sub-003" / "sub-003_desc-logdetjacobian_map.nii.gz"
    values = cohort.maps["sub-003"].copy()
    values[2, 2, 2] = np.nan
    write_volume(path, values, read_map(path).grid)
    discover_files(**cohort.options(tmp_path / "out"))
    record = record_of(tmp_path / "out")
    assert record["claimed"]
    assert record["notes"][0] == (
        "log_jacobian: 1 of 49920 block means are undefined, in 1 subjects, and took the mean of the fitted subjects"
    )


def test_two_kinds_that_are_two_sites_are_gone_with_the_site(
    found: Path, registered_cohort: Cohort, tmp_path: Path
) -> None:
    """The kind of a brain stands in ``sex``; the same cohort with that column called a site."""
    registered_cohort.table.rename(columns={"sex": "site"}).to_csv(tmp_path / "manifest.csv", index=False)
    options = registered_cohort.options(tmp_path / "out") | {"manifest": tmp_path / "manifest.csv"}
    discover_files(**options, nuisances=["site", "age"])
    record = record_of(tmp_path / "out")
    assert record_of(found)["claimed"]
    assert not record["claimed"]
    assert record["settings"]["nuisances"] == ["site", "age"]
    assert record["nuisances"] == [
        {"name": "site", "kind": "categorical", "categories": ["female", "male"]},
        {"name": "age", "kind": "numeric", "categories": []},
    ]
    assert record_of(found)["nuisances"] == []
    assert record_of(found)["settings"]["nuisances"] is None


def test_a_kind_beside_sites_is_found_when_the_site_is_taken_out(own_cohort: Make, tmp_path: Path) -> None:
    cohort = own_cohort()
    site = np.random.default_rng(1).integers(2, size=len(cohort.table))
    options = change(cohort, lambda table: table.assign(site=np.array(["A", "B"])[site]))
    for row, subject in enumerate(cohort.table["subject_id"]):
        path = cohort.registered / subject / f"{subject}_desc-logdetjacobian_map.nii.gz"
        values = cohort.maps[subject].copy()
        values[1:4, 2:10, 6:9] += 2 * site[row]  # far from the place of the kind, and larger
        write_volume(path, values, read_map(path).grid)
    truth = registered_rows(cohort).merge(cohort.table[["subject_id"]].assign(site=site), on="subject_id")
    for nuisances, of, not_of in ((None, "site", "member"), (["site"], "member", "site")):
        folder = tmp_path / of
        discover_files(**options | {"out": folder}, nuisances=nuisances, methods=("local",))
        subgroup = pd.read_csv(folder / "subgroups.csv")["subgroup"]
        assert record_of(folder)["claimed"]
        assert adjusted_rand_score(truth[of], subgroup) > 0.8
        assert adjusted_rand_score(truth[not_of], subgroup) < 0.1


def write_regions(folder: Path) -> Path:
    """Eight parts of a brain, and a region around the place of the kind, which is named."""
    labels = 1 + np.array([4, 2, 1]) @ (np.indices(SHAPE).reshape(3, -1) >= np.array([[5], [6], [5]]))
    labels = labels.reshape(SHAPE)
    labels[6:9, 5:8, 3:6] = 40  # around the place of the kind
    labels[0] = 0
    (folder / "parts_dseg.tsv").write_text("index\tname\n40\tHippocampus\n")
    return write_volume(folder / "parts_dseg.nii.gz", labels.astype(np.int32), Grid.isotropic(SHAPE, 8.0))


def test_volumes_of_regions_show_the_region_that_differs(registered_cohort: Cohort, tmp_path: Path) -> None:
    regions, out = write_regions(tmp_path), tmp_path / "out"
    options = {"representations": ("regional_volumes",), "methods": ("local",), "regions": regions}
    discover_files(**registered_cohort.options(out), **options)
    record, table = record_of(out), pd.read_csv(out / "subgroups.csv")
    assert record["claimed"]
    assert record["place"]["region"] == "Hippocampus"
    assert record["place"]["voxel"] == [7, 6, 4]
    test = table["split"] == "test"
    assert adjusted_rand_score(registered_rows(registered_cohort)["member"][test], table["subgroup"][test]) > 0.8
    assert {"parts_dseg.nii.gz", "parts_dseg.tsv"} < set(record["inputs"])
    other = write_volume(tmp_path / "other.nii.gz", np.ones(SHAPE, np.int32), Grid.isotropic(SHAPE, 9.0))
    with pytest.raises(MonaiFairError) as caught:
        discover_files(**registered_cohort.options(tmp_path / "no"), **options | {"regions": other})
    assert str(caught.value) == (
        f"{other}: expected the grid of {registered_cohort.root / 'template_desc-brain_mask.nii.gz'}, (10, 12, 10) "
        "voxels, got another of (10, 12, 10) voxels; give regions of the template of the registration"
    )


def change(cohort: Cohort, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> dict[str, Path]:
    edit(cohort.table).to_csv(cohort.manifest, index=False)
    return dict(cohort.options(cohort.root / "out"))


def test_labels_of_one_class_or_none_leave_the_rest(own_cohort: Make) -> None:
    cohort = own_cohort()
    options = change(cohort, lambda table: table.assign(label=1))
    discover_files(**options, methods=("local",))
    measured = record_of(options["out"])["label_association"]["train"]
    assert [row["reason"] for row in measured["rows"]] == ["no negative row"] * 2
    assert measured["rows"][0]["odds_ratio"] is None
    assert measured["overall"]["reason"] == "second variable has one value only"
    options = change(cohort, lambda table: table.drop(columns="label")) | {"out": cohort.root / "unlabelled"}
    discover_files(**options, methods=("mixture",))
    assert record_of(options["out"])["label_association"] == {}


@pytest.mark.parametrize(
    ("edit", "options", "error", "message"),
    [
        (
            lambda table: table.drop(columns="split"),
            {},
            ManifestError,
            "{manifest}: expected a column 'split' (train, val, test), found none; add it",
        ),
        (
            lambda table: pd.concat([table, table[:2].assign(image=["x.nii", "y.nii"])]),
            {},
            ManifestError,
            "{manifest}: expected one row for each subject, 2 have more: sub-000, sub-001; keep one",
        ),
        (
            lambda table: table.assign(subject_id="x" + table["subject_id"]),
            {},
            ManifestError,
            "{manifest}: expected subjects that are registered in {registered}, got none of 80; check the ids",
        ),
        (
            lambda table: table[:2],
            {},
            MonaiFairError,
            "{manifest}: expected at least 20 registered subjects in train and val to fit on, got 2; fewer show no "
            "shape to speak of",
        ),
        (
            lambda table: table,
            {"attributes": ("sex", "race")},
            MonaiFairError,
            "{manifest}: attributes: expected recorded ones (sex, age, code), got 'race'; correct the name",
        ),
        (
            lambda table: table.assign(sex=table["sex"].where(table.index != 4, "")),
            {"attributes": ("race",), "nuisances": ("label", "sex")},
            MonaiFairError,
            "{manifest}: 3 problems\n"
            "  1. attributes: expected recorded ones (sex, age, code), got 'race'; correct the name\n"
            "  2. nuisances: expected recorded ones (sex, age, code), got 'label'; correct the name\n"
            "  3. nuisance 'sex': expected a value for every registered subject, 1 have none: sub-004; fill them, or "
            "leave these subjects or the nuisance out",
        ),
        (
            lambda table: table,
            {
                "fit_splits": ("train", "test"),
                "representations": ("volume",),
                "regions": "x.nii.gz",
                "nuisances": ("sex", "sex"),
                "block_mm": 0.0,
            },
            MonaiFairError,
            "discover: 5 problems\n"
            "  1. representations: expected names of log_jacobian, regional_volumes, displacement, codes, intensity, "
            "embeddings, each once, got 'volume'\n"
            "  2. regions: expected a file with, and only with, the representation 'regional_volumes'\n"
            "  3. fit_splits: expected names of train, val, each once, got 'train,test'\n"
            "  4. nuisances: expected each once, got 'sex,sex'\n"
            "  5. block_mm: expected a number above 0, got 0.0",
        ),
        (
            lambda table: table,
            {"representations": ("embeddings",)},
            MonaiFairError,
            "discover: embeddings: expected a file with, and only with, the representation 'embeddings'",
        ),
    ],
)
def test_what_cannot_be_used_is_one_message(
    own_cohort: Make,
    edit: Callable[[pd.DataFrame], pd.DataFrame],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    cohort = own_cohort()
    with pytest.raises(error) as caught:
        discover_files(**change(cohort, edit), **options)
    assert str(caught.value) == message.format(manifest=cohort.manifest, registered=cohort.registered)
    assert not (cohort.root / "out").exists()


def test_files_that_are_not_there_are_named(own_cohort: Make) -> None:
    cohort = own_cohort()
    options = cohort.options(cohort.root / "out")
    for subject in ("sub-004", "sub-005"):
        (cohort.registered / subject / f"{subject}_desc-logdetjacobian_map.nii.gz").unlink()
    with pytest.raises(RegistrationError) as caught:
        discover_files(**options)
    assert str(caught.value) == (
        f"{cohort.registered}: expected sub-004_desc-logdetjacobian_map.nii.gz and its like for each of 78 registered "
        "subjects, 2 have none; register with exports that hold 'logdet'"
    )
    with pytest.raises(RegistrationError, match=r"expected registration\.csv, found none; give the output_dir"):
        discover_files(**options | {"registered": cohort.root})
    with pytest.raises(RegistrationError, match=r"template: expected template_T1w\.nii\.gz in"):
        discover_files(**options | {"root": cohort.registered})
    other = cohort.root / "mask.nii.gz"
    write_volume(other, np.ones((10, 12, 10), bool), Grid.isotropic((10, 12, 10), 9.0))
    with pytest.raises(MonaiFairError, match=r"expected the template's grid of \(10, 12, 10\) voxels"):
        discover_files(**options, template_mask=other, representations=("intensity",))


def test_the_verbs_from_a_registration_to_weights(registered_cohort: Cohort, tmp_path: Path) -> None:
    def run(*arguments: object) -> list[str]:
        command = [sys.executable, "-W", "error", "-m", "monai_fair", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    shown = run(
        "discover", registered_cohort.registered, "--manifest", registered_cohort.manifest, "--root",
        registered_cohort.root, "--out", "found", "--attributes", "sex,age", "--methods", "local",
    )  # fmt: skip
    record = record_of(tmp_path / "found")
    assert shown[0] == "78 subjects, 60 of them fitted; 2 of the manifest are not registered"
    sizes = "+".join(map(str, record["candidates"][0]["sizes"]))
    assert shown[1].startswith(f"log_jacobian, local: {sizes}, p 0.005, adjusted for 1 0.005, stability ")
    assert shown[2].startswith("claimed: subgroups that differ around x ")
    counts = record["subgroups"][0]["n_by_split"]
    assert shown[3] == f"S1: train {counts['train']}, val {counts['val']}, test {counts['test']}"
    row = record["label_association"]["train"]["rows"][0]
    assert shown[5].startswith(f"train, S1: label 1 in {row['n_positive']} of {row['n']}, odds ratio ")
    assert shown[-3].startswith("sex: Cramer's V ")
    assert shown[-2].startswith("age: AUROC of S")
    assert shown[-1] == "found/discovery.html"
    assert (tmp_path / "found" / "discovery.html").is_file()
    # rows of test lack a subgroup where registration failed; the weights are of training rows only
    shown = run("rebalance", registered_cohort.manifest, "--subgroups", "found/subgroups.csv", "--out", "new.csv")
    assert shown[0] == "80 images of 80 subjects, 0 rows dropped"
    assert shown[-1] == "new.csv"
    table = pd.read_csv(tmp_path / "new.csv")
    train = table[table["split"] == "train"]
    weighted = train.groupby(["label", "subgroup"])["weight"].sum().unstack()
    # once weighted, label and subgroup are independent: the table is the product of its margins
    product = np.outer(weighted.sum(axis=1), weighted.sum(axis=0)) / weighted.to_numpy().sum()
    np.testing.assert_allclose(weighted, product)
    assert (table.loc[table["split"] != "train", "weight"] == 1).all()


def test_the_verb_adds_what_a_file_is_given_for(
    registered_cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {name: str(path) for name, path in registered_cohort.options(tmp_path / "out").items()}
    regions = write_regions(tmp_path)
    page = discover(**paths, methods="local", regions=str(regions), nuisances=("age", "sex"))
    settings = record_of(tmp_path / "out")["settings"]
    assert settings["representations"] == ["log_jacobian", "regional_volumes"]
    assert settings["nuisances"] == ["age", "sex"]
    assert "the overall size of the brain (of volumes), age (as a number) and sex (2 categories)." in Path(
        page
    ).read_text(encoding="utf-8")
    assert "no subgroup claimed" in capsys.readouterr().out


def test_the_verb_says_when_nothing_is_claimed(own_cohort: Make, tmp_path: Path) -> None:
    cohort = own_cohort(effect=0.0)
    discover_files(**cohort.options(tmp_path / "out"))
    shown = list(discovery_lines(read_json(tmp_path / "out" / "discovery.json", "discovery")))
    assert "no subgroup claimed: all subjects are in S1" in shown
    assert "stability undefined (no number of clouds above one" in shown[2]
    assert not any("odds ratio" in line for line in shown)
