"""The registration bundle on a tiny cohort: fit, registration of new subjects, evaluation, and subjects that fail."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from monai_fair.data import read_displacement, read_labels
from monai_fair.data.artifacts import read_tensors, sha256
from monai_fair.engines import read_codes
from monai_fair.errors import MonaiFairError

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

TRUTH = Path("derivatives/truth")
FILES = (
    "code.safetensors", "desc-logdetjacobian_map.nii.gz", "from-T1w_to-template_xfm.h5",
    "from-T1w_to-template_xfm.nii.gz", "from-template_to-T1w_xfm.h5", "from-template_to-T1w_xfm.nii.gz",
    "registration.json", "space-T1w_desc-roi_dseg.nii.gz", "space-T1w_desc-template_T1w.nii.gz",
    "space-T1w_dseg.nii.gz", "space-template_T1w.nii.gz",
)  # fmt: skip


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "registration.csv", dtype={"subject_id": str}).set_index("subject_id")


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    status = {path: path.stat() for path in folder.rglob("*")}
    return {str(path.relative_to(folder)): (found.st_mtime_ns, found.st_size) for path, found in status.items()}


def refusal(run: Any, *arguments: Any, **overrides: Any) -> str:
    """Return the message of the error that MONAI's parser wraps."""
    with pytest.raises((MonaiFairError, RuntimeError)) as caught:
        run(*arguments, **overrides)
    error: BaseException = caught.value
    while not isinstance(error, MonaiFairError):
        assert error.__cause__ is not None, f"expected an error of ours, got {error!r}"
        error = error.__cause__
    return str(error)


def rows_of(bundle: Any, split: str) -> list[str]:
    manifest = pd.read_csv(bundle.cohort / "manifest.csv", dtype=str)
    return manifest.loc[manifest["split"] == split, "subject_id"].tolist()


@pytest.fixture(scope="module")
def evaluated(registration: Any, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return registration.evaluate(tmp_path_factory.mktemp("evaluated"), fitted / "model.pt")


@pytest.fixture(scope="module")
def inferred(registration: Any, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return registration.infer(tmp_path_factory.mktemp("inferred"), fitted / "model.pt")


@pytest.fixture
def poisoned(registration: Any, tmp_path: Path) -> tuple[Path, list[str]]:
    """The cohort with a NaN in the image of one subject of each split."""
    root = tmp_path / "poisoned"
    shutil.copytree(registration.cohort, root)
    subjects = [rows_of(registration, split)[1] for split in ("train", "val", "test")]
    for subject in subjects:
        path = image_of(root, subject)
        scan = nib.load(path)
        image = scan.get_fdata()
        image[12, 14, 12] = np.nan
        save(path, image, scan.affine)
    return root, subjects


def image_of(root: Path, subject: str) -> Path:
    return root / subject / "anat" / f"{subject}_T1w.nii.gz"


def save(path: Path, image: Any, affine: Any) -> None:
    nib.save(nib.Nifti1Image(np.asarray(image, dtype=np.float32), affine), path)


def test_a_fit_writes_only_under_output_dir(registration: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    before = tree(registration.root), tree(registration.cohort)
    output = registration.train(tmp_path / "new" / "run")
    registration.evaluate(tmp_path / "new" / "evaluated", output / "model.pt")
    assert sorted(path.name for path in output.iterdir()) == [
        "cache",
        "codes.safetensors",
        "model.json",
        "model.pt",
        "training_state.pt",
    ]
    assert (tree(registration.root), tree(registration.cohort)) == before
    assert list(elsewhere.iterdir()) == []


def test_codes_belong_to_subjects_and_to_the_network(registration: Any, fitted: Path) -> None:
    subjects, codes = read_codes(fitted / "codes.safetensors")
    assert subjects == rows_of(registration, "train")
    assert codes.shape == (6, 3, 24)
    assert codes.flatten(1).norm(dim=1).min() > 0.01
    assert read_tensors(fitted / "codes.safetensors")[1]["network_fingerprint"] == sha256(fitted / "model.pt")


def test_one_seed_gives_one_model_and_another_seed_another(
    registration: Any, fitted: Path, tmp_path: Path, state_of: Any
) -> None:
    first, again, other = (
        state_of(folder)
        for folder in (fitted, registration.train(tmp_path / "a"), registration.train(tmp_path / "b", seed=1))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_unseen_subjects_come_closer_to_the_truth(registration: Any, evaluated: Path) -> None:
    found = table(evaluated)
    assert list(found.index) == rows_of(registration, "test")
    assert (found["status"] == "registered").all()
    for name in ("", "_codes"):
        assert (found[f"endpoint_error_mm{name}"] < found["endpoint_error_mm_before"]).all()
        assert found[f"dice_tissue{name}"].mean() > found["dice_tissue_before"].mean()
        assert (found[f"similarity{name}"] > found["similarity_before"]).all()
    assert (found["similarity"] > found["similarity_codes"]).all()


def test_the_table_says_what_the_files_hold(registration: Any, evaluated: Path) -> None:
    """Endpoint error and Dice again, in numpy, from the files of a user."""
    for subject, row in table(evaluated).iterrows():
        stem = evaluated / str(subject) / str(subject)
        truth = registration.cohort / TRUTH / str(subject) / str(subject)
        field, grid = read_displacement(f"{stem}_from-template_to-T1w_xfm.nii.gz")
        true, _ = read_displacement(f"{truth}_desc-truth_xfm.nii.gz")
        inside = read_labels(f"{truth}_desc-brain_mask.nii.gz").array > 0
        spacing = np.array(grid.spacing_mm)[:, None, None, None]
        error = np.sqrt((((field - true) * spacing) ** 2).sum(axis=0))[inside]
        assert row["endpoint_error_mm"] == pytest.approx(error.mean(), abs=2e-4)
        assert row["endpoint_error_p95_mm"] == pytest.approx(np.quantile(error, 0.95), abs=1e-3)
        labels = read_labels(registration.cohort / TRUTH / "template_dseg.nii.gz").array
        own = read_labels(f"{truth}_dseg.nii.gz").array
        places = np.rint(np.indices(own.shape) + field).astype(int)
        size = np.array(own.shape)[:, None, None, None]
        moved = np.where(((places >= 0) & (places < size)).all(axis=0), labels[tuple(np.clip(places, 0, size - 1))], 0)
        dice = [2 * ((own == n) & (moved == n)).sum() / ((own == n).sum() + (moved == n).sum()) for n in (1, 2, 3)]
        assert row["dice_tissue"] == pytest.approx(np.mean(dice), abs=2e-3)  # ties of rounding


def test_inference_gives_what_evaluation_gives(registration: Any, inferred: Path, evaluated: Path) -> None:
    """Two runs with other neighbours in the batch."""
    one, other = table(evaluated), table(inferred)
    assert list(other.index) == pd.read_csv(registration.cohort / "manifest.csv", dtype=str)["subject_id"].tolist()
    shared = ["similarity", "similarity_codes", "folds", "sd_log_det_jacobian", "inverse_error_mm", "code_norm"]
    rest = other.loc[one.index, shared]
    # without the subject's own mask the warped template's is taken: another few voxels at the edge
    np.testing.assert_allclose(rest["code_norm"], one["code_norm"], rtol=1e-4)
    np.testing.assert_allclose(rest[shared[:-1]], one[shared[:-1]], atol=0.02)
    for subject in one.index:
        name = f"{subject}/{subject}_from-template_to-T1w_xfm.nii.gz"
        np.testing.assert_allclose(
            read_displacement(evaluated / name)[0], read_displacement(inferred / name)[0], rtol=0, atol=1e-4
        )


def test_each_subject_has_its_files_and_the_page_is_written(inferred: Path) -> None:
    for subject in table(inferred).index:
        names = sorted(path.name for path in (inferred / str(subject)).iterdir())
        assert names == [f"{subject}_{name}" for name in FILES]
    subjects, codes = read_codes(inferred / "codes.safetensors")
    assert subjects == list(table(inferred).index)
    assert codes.shape == (12, 3, 24)
    page = (inferred / "registration.html").read_text(encoding="utf-8")
    assert "12" in page
    assert "data:image/png" in page
    assert "<script" not in page


def test_evaluation_shows_tissues_on_its_page(evaluated: Path) -> None:
    assert "grey matter" in (evaluated / "registration.html").read_text(encoding="utf-8")


def test_inference_stands_alone(registration: Any, fitted: Path, evaluated: Path, tmp_path: Path) -> None:
    """One file of the bundle, a manifest of two columns, and a template from elsewhere."""
    subject = rows_of(registration, "test")[0]
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(registration.files("inference")[0], alone)
    shutil.copy(image_of(registration.cohort, subject), alone / "scan.nii.gz")
    (alone / "manifest.csv").write_text(f"subject_id,image\n{subject.removeprefix('sub-')},scan.nii.gz\n")
    template = registration.cohort / TRUTH / "template"
    registration.run(
        str(alone / "inference.yaml"),
        output=tmp_path / "out",
        dataset_dir=str(alone),
        ckpt_path=str(fitted / "model.pt"),
        template=f"{template}_T1w.nii.gz",
        template_mask=f"{template}_desc-brain_mask.nii.gz",
        num_workers=0,
    )
    name = f"{subject}/{subject}_from-template_to-T1w_xfm.nii.gz"
    found, expected = (read_displacement(folder / name)[0] for folder in (tmp_path / "out", evaluated))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def written(registration: Any, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One subject in each batch, as a server does it."""
    options = {"splits": "test", "exports": ["labels"], "report": False, "batch_size": 1}
    return registration.infer(tmp_path_factory.mktemp("written"), fitted / "model.pt", **options)


@pytest.mark.parametrize("label_map", ["tissue", "roi"])
@pytest.mark.parametrize("axes", ["RAS", "PIR", "LSA"])
def test_what_servers_run_gives_the_labels_of_inference_on_the_image(
    registration: Any, fitted: Path, written: Path, tmp_path: Path, axes: str, label_map: str
) -> None:
    """Preprocessing, inferer and postprocessing of the config, as MONAI Label calls them, on a file with other axes."""
    subject = rows_of(registration, "test")[0]
    scan = nib.load(image_of(registration.cohort, subject))
    turned = reoriented(scan, axes)
    nib.save(turned, tmp_path / "scan.nii.gz")
    options = {"ckpt_path": str(fitted / "model.pt"), "inferer#label_map": label_map}
    parser = registration.workflow("inference", output=tmp_path / "out", **options).parser
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(fitted / "model.pt", weights_only=True), strict=True)
    data = parser.get_parsed_content("preprocessing")({"image": str(tmp_path / "scan.nii.gz")})
    data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
    found = parser.get_parsed_content("postprocessing")(data)["pred"]
    np.testing.assert_allclose(found.affine, turned.affine)
    assert found.shape == (1, *turned.shape)
    name = "dseg" if label_map == "tissue" else "desc-roi_dseg"
    labels = nib.load(written / subject / f"{subject}_space-T1w_{name}.nii.gz")
    expected = np.asarray(reoriented(labels, axes).dataobj)
    assert len(np.unique(expected)) > 3
    np.testing.assert_array_equal(found[0], expected)


def reoriented(image: Any, axes: str) -> Any:
    """The same voxels in the same places, stored in another order."""
    wanted = nib.orientations.axcodes2ornt(tuple(axes))
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(image.affine), wanted)
    return image.as_reoriented(turn)


def test_a_bundle_brings_its_own_template(registration: Any, fitted: Path, written: Path, tmp_path: Path) -> None:
    """As one that is served does: beside the model, where the images have none."""
    root = tmp_path / "packed"
    shutil.copytree(registration.root, root)
    (root / "models").mkdir()
    for path in (registration.cohort / TRUTH).glob("template_*.nii.gz"):
        shutil.copy(path, root / "models")
    subject = rows_of(registration, "test")[0]
    shutil.copy(image_of(registration.cohort, subject), tmp_path / "scan.nii.gz")
    (tmp_path / "manifest.csv").write_text(f"subject_id,image\n{subject.removeprefix('sub-')},scan.nii.gz\n")
    options = {"dataset_dir": str(tmp_path), "bundle_root": str(root), "exports": ["labels"], "report": False}
    registration.infer(tmp_path / "out", fitted / "model.pt", **options)
    name = f"{subject}/{subject}_space-T1w_dseg.nii.gz"
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / name).array, read_labels(written / name).array)


def test_options_reach_the_fit_of_new_subjects(registration: Any, fitted: Path, tmp_path: Path) -> None:
    output = registration.infer(
        tmp_path, fitted / "model.pt", residual_levels=[], exports=["field"], splits="test", report=False
    )
    found = table(output)
    assert list(found.index) == rows_of(registration, "test")
    assert not [name for name in found if name.endswith("_codes")]
    assert not (output / "registration.html").exists()
    first = found.index[0]
    kept = [f"{first}_{name}" for name in ("code.safetensors", "from-template_to-T1w_xfm.nii.gz", "registration.json")]
    assert sorted(path.name for path in (output / first).iterdir()) == kept


def test_a_cohort_of_another_contrast_is_fitted_and_registered(registration: Any, tmp_path: Path) -> None:
    root = tmp_path / "inverted"
    shutil.copytree(registration.cohort, root)
    for subject in (name for split in ("train", "val", "test") for name in rows_of(registration, split)):
        scan = nib.load(image_of(root, subject))
        image = scan.get_fdata()
        save(image_of(root, subject), np.minimum(image / 0.2, 1) * (1.1 - image), scan.affine)
    options = {"dataset_dir": str(root), "contrast": "any"}
    fitted = registration.train(tmp_path / "any", **options)
    found = table(registration.evaluate(tmp_path / "out", fitted / "model.pt", **options))
    assert (found["status"] == "registered").all()
    assert found["endpoint_error_mm"].mean() < 0.9 * found["endpoint_error_mm_before"].mean()
    assert "give --contrast any" in refusal(registration.train, tmp_path / "same", dataset_dir=str(root))


def test_a_velocity_folds_nothing_and_has_its_inverse(registration: Any, tmp_path: Path) -> None:
    velocity = {"network_def#integration_steps": 5}
    model = registration.train(tmp_path / "fit", **velocity) / "model.pt"
    found = table(registration.evaluate(tmp_path / "new", model, **velocity))
    assert (found["folds"] == 0).all()
    assert (found["inverse_error_mm"] < 0.05 * found["endpoint_error_mm_before"]).all()
    message = refusal(registration.infer, tmp_path / "other", model)
    assert message == f"{model}: integration_steps: trained with 5, now 0; give the values it was trained with"


def test_a_poisoned_subject_is_left_out_of_the_fit(
    registration: Any, poisoned: tuple[Path, list[str]], tmp_path: Path, state_of: Any
) -> None:
    root, (subject, unseen, _) = poisoned
    output = registration.train(tmp_path / "fit", dataset_dir=str(root))
    failures = pd.read_csv(output / "failures.csv", dtype=str)
    assert failures["subject_id"].tolist() == [subject]
    path = image_of(root, subject)
    assert failures["reason"][0] == f"{path}: expected finite voxels, got 1 that are not, of 16128; repair the image"
    subjects, _ = read_codes(output / "codes.safetensors")
    assert subjects == [name for name in rows_of(registration, "train") if name != subject]
    manifest = pd.read_csv(root / "manifest.csv", dtype=str)
    manifest[~manifest["subject_id"].isin([subject, unseen])].to_csv(tmp_path / "without.csv", index=False)
    without = registration.train(tmp_path / "without", manifest=str(tmp_path / "without.csv"))
    assert all(torch.equal(value, state_of(without)[name]) for name, value in state_of(output).items())


def test_a_poisoned_subject_is_a_row_and_is_tried_again(
    registration: Any, fitted: Path, inferred: Path, poisoned: tuple[Path, list[str]], tmp_path: Path
) -> None:
    root, subjects = poisoned
    registration.infer(tmp_path / "new", fitted / "model.pt", dataset_dir=str(root))
    found = table(tmp_path / "new")
    failed = found[found["status"] == "failed"]
    assert sorted(failed.index) == sorted(subjects)
    assert all(str(image_of(root, str(name))) in reason for name, reason in failed["reason"].items())
    assert failed["similarity"].isna().all()
    expected = table(inferred).drop(index=subjects)
    np.testing.assert_allclose(found.loc[expected.index, "similarity"], expected["similarity"], atol=1e-4)
    done = tree(tmp_path / "new" / str(expected.index[0]))
    for subject in subjects:
        shutil.copy(image_of(registration.cohort, subject), image_of(root, subject))
    registration.infer(tmp_path / "new", fitted / "model.pt", dataset_dir=str(root))
    again = table(tmp_path / "new")
    assert (again["status"] == "registered").all()
    np.testing.assert_allclose(again["similarity"], table(inferred)["similarity"], atol=1e-4)
    assert tree(tmp_path / "new" / str(expected.index[0])) == done


def test_a_brain_without_contrast_is_named(registration: Any, fitted: Path, tmp_path: Path) -> None:
    """Constant inside the template's mask, and something around it: no constant image."""
    root = tmp_path / "flat"
    shutil.copytree(registration.cohort, root)
    subject, *rest = rows_of(registration, "test")
    path = image_of(root, subject)
    scan = nib.load(path)
    inside = nib.load(root / TRUTH / "template_desc-brain_mask.nii.gz").get_fdata() > 0
    save(path, np.where(inside, 0, 1 + scan.get_fdata()), scan.affine)
    found = table(
        registration.infer(
            tmp_path / "new", fitted / "model.pt", dataset_dir=str(root), splits="test", exports=[], report=False
        )
    )
    assert found["status"].to_dict() == {subject: "failed", **dict.fromkeys(rest, "registered")}
    assert found.loc[subject, "reason"] == (
        f"{path}: expected different intensities inside the brain's mask, got 0 in every voxel of it; give another file"
    )


@pytest.mark.parametrize("left", [1, 0])
def test_a_fit_names_validation_subjects_that_cannot_be_used(
    registration: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], left: int
) -> None:
    """In four epochs each is named once, where the bundle's logging.conf sends it."""
    root = tmp_path / "poisoned"
    shutil.copytree(registration.cohort, root)
    subjects = rows_of(registration, "val")
    broken = subjects[left:]
    for subject in broken:
        image_of(root, subject).write_bytes(b"")
    if left:
        registration.train(tmp_path / "fit", dataset_dir=str(root))
    else:
        message = refusal(registration.train, tmp_path / "fit", dataset_dir=str(root))
        assert message.startswith("validation: expected at least one subject that can be registered, got none of 3;")
    told = re.findall(r"WARNING - subject (\S+) is left out: (\S+): expected a NIfTI file", capsys.readouterr().out)
    assert told == [(subject, str(image_of(root, subject))) for subject in broken]
    assert (tmp_path / "fit" / "model.pt").exists() == bool(left)


@pytest.mark.parametrize(
    ("names", "switch"),
    [(("train",), "amp"), (("train",), "progress"), (("inference",), "amp"), (("inference", "shards"), "report")],
)
def test_a_text_for_a_switch_is_refused_at_once(
    registration: Any, fitted: Path, tmp_path: Path, names: tuple[str, ...], switch: str
) -> None:
    """``--report false`` is a text for MONAI."""
    options = {switch: "false"} if "train" in names else {switch: "false", "ckpt_path": str(fitted / "model.pt")}
    message = refusal(registration.run, *names, output=tmp_path / "out", **options)
    assert message == f"options: expected --{switch} True or --{switch} False, got 'false'; spell it so"
    assert not (tmp_path / "out" / "registration.csv").exists()
    assert not (tmp_path / "out" / "model.pt").exists()


def test_a_model_is_used_as_it_was_trained(registration: Any, fitted: Path, tmp_path: Path) -> None:
    model = fitted / "model.pt"
    message = refusal(registration.infer, tmp_path / "a", model, **{"network_def#spacing": 5.0})
    assert message == f"{model}: spacing: trained with 4.0, now 5.0; give the values it was trained with"
    registration.infer(tmp_path / "b", model, splits="test", report=False)
    message = refusal(registration.infer, tmp_path / "b", model, splits="test", smoothness=1.0)
    assert message.startswith(f"{tmp_path}/b/registration.json: made with other settings")


def test_a_template_on_another_grid_is_refused(registration: Any, fitted: Path, tmp_path: Path) -> None:
    for name in ("T1w", "desc-brain_mask"):
        scan = nib.load(registration.cohort / TRUTH / f"template_{name}.nii.gz")
        save(tmp_path / f"{name}.nii.gz", scan.get_fdata()[:, :-2], scan.affine)
    options = {"template": str(tmp_path / "T1w.nii.gz"), "template_mask": str(tmp_path / "desc-brain_mask.nii.gz")}
    message = refusal(registration.infer, tmp_path / "out", fitted / "model.pt", **options)
    assert "image_shape: trained with [24, 28, 24], now [24, 26, 24]" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"exports": ["field", "wraped"]},
            "exports: expected names of field, inverse, itk, warped, labels, logdet,",
        ),
        ({"shard": 3}, "shard: expected a part and how many there are, from [0, n] to [n - 1, n], got 3"),
        ({"code_levels": []}, "code_levels: expected at least one level, got none"),
        (
            {"code_levels": [[2.0, 4]]},
            "levels: expected a list of [blur in voxels, stride in voxels, steps], the",
        ),
        ({"template": "none.nii.gz"}, "none.nii.gz"),
        ({"splits": "tets"}, "expected rows with split 'tets', got none"),
    ],
)
def test_options_that_cannot_be_used_are_named(
    registration: Any, fitted: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    assert message in refusal(registration.infer, tmp_path / "out", fitted / "model.pt", **options)


def test_the_command_ends_with_a_message_and_a_status(registration: Any, fitted: Path, tmp_path: Path) -> None:
    """A user's typing error: a folder without a template."""
    given = {"dataset_dir": str(tmp_path), "ckpt_path": str(fitted / "model.pt"), "output_dir": str(tmp_path / "out")}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", registration.files("inference")[0]]
    command += [text for name, value in given.items() for text in (f"--{name}", value)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    places = f"{tmp_path} or {tmp_path / TRUTH} or models"
    assert f"template: expected template_T1w.nii.gz in {places}, found none; give template and template_mask" in (
        done.stderr
    )
