"""RegistrationInfer: labels and transform of ``bundle run``, what the fit is worth, and options that cannot be."""

import json
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from monai_fair.errors import LabelError
from monai_fair.label.served_bundle import ServedBundle

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of MONAI Label's own imports
    from monai_fair.label.server.registration_infer import RegistrationInfer

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
# And its client leaves connections open.
pytestmark = pytest.mark.filterwarnings(
    "ignore:parsing config_file:UserWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
)

TISSUES = {"cerebrospinal fluid": 1, "grey matter": 2, "white matter": 3}


@pytest.fixture(scope="module")
def task(brains: Any) -> RegistrationInfer:
    return RegistrationInfer(brains.bundle, {"preload": "false"})


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Sums in several threads differ in the last bit from those of the run to compare with."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def copied(brains: Any, tmp_path: Path) -> ServedBundle:
    """The bundle, to be changed."""
    shutil.copytree(brains.bundle.path, tmp_path / brains.bundle.name)
    return ServedBundle.of_checked(tmp_path / brains.bundle.name)


def ask(task: RegistrationInfer, brains: Any, image: str, **options: Any) -> tuple[Path, dict[str, Any]]:
    # the list of devices is what a client sends that has not chosen one
    file, answer = task({"image": str(brains.studies / f"{image}.nii.gz"), "device": ["cpu"], **options})
    assert file is not None
    return Path(file), answer


def in_world(path: Path) -> Any:
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def written(brains: Any, image: str, name: str) -> Path:
    path: Path = brains.written / f"sub-{image}" / f"sub-{image}_{name}"
    return path


def test_the_options_are_told_to_viewers(task: RegistrationInfer) -> None:
    info = task.info()
    assert info["type"] == "segmentation"
    assert info["labels"] == TISSUES
    assert info["config"]["result"] == ["labels", "transform"]
    assert info["config"]["label_map"] == ["tissue", "roi"]
    assert "model_filename" not in info["config"]
    assert {"result", "label_map", "device", "save_label"} <= task.request_keys


@pytest.mark.parametrize("image", ["pir", "lsa"])
@pytest.mark.parametrize(("label_map", "name"), [(None, "dseg"), ("tissue", "dseg"), ("roi", "desc-roi_dseg")])
def test_labels_are_those_of_bundle_run(
    task: RegistrationInfer, brains: Any, image: str, label_map: str | None, name: str
) -> None:
    """The default is the first of the choices; clients that have none to show send the whole list."""
    file, answer = ask(task, brains, image, label_map=label_map or ["tissue", "roi"], result=["labels", "transform"])
    scan, found = nib.load(brains.studies / f"{image}.nii.gz"), nib.load(file)
    assert found.shape == scan.shape
    np.testing.assert_allclose(found.affine, scan.affine, atol=1e-4)
    expected = in_world(written(brains, image, f"space-T1w_{name}.nii.gz"))
    np.testing.assert_array_equal(in_world(file), expected)
    assert (answer["result"], answer["label_map"]) == ("labels", label_map or "tissue")
    values = [int(value) for value in np.unique(in_world(brains.bundle.models / f"template_{name}.nii.gz")) if value]
    assert list(answer["label_names"].values()) == values
    if name == "dseg":
        assert answer["label_names"] == TISSUES
    else:
        assert next(iter(answer["label_names"])) == "label 1"
    file.unlink()


@pytest.mark.parametrize("image", ["pir", "lsa"])
def test_the_answer_says_what_the_table_of_bundle_run_says(task: RegistrationInfer, brains: Any, image: str) -> None:
    table = pd.read_csv(brains.written / "registration.csv", keep_default_na=False).set_index("subject_id")
    file, answer = ask(task, brains, image)
    for name in ("noise", "similarity", "similarity_before", "folds"):
        assert answer[name] == pytest.approx(float(table.loc[image, name]), rel=1e-5), name
    assert (answer["status"], answer["reason"]) == ("registered", "")
    assert table.loc[image, "status"] == "registered"
    json.dumps(answer, allow_nan=False)
    file.unlink()


def test_the_transform_is_the_file_of_bundle_run(task: RegistrationInfer, brains: Any) -> None:
    """The same places to SimpleITK, and the template's labels under it are those of the other result."""
    file, answer = ask(task, brains, "pir", result="transform")
    assert file.suffix == ".h5"
    assert answer["result"] == "transform"
    assert answer["status"] == "registered"
    found, expected = (
        sitk.ReadTransform(str(path)) for path in (file, written(brains, "pir", "from-template_to-T1w_xfm.h5"))
    )
    rng = np.random.default_rng(0)
    points = rng.uniform(-60, 60, size=(50, 3))
    moved = np.array([found.TransformPoint(point) for point in points.tolist()])
    np.testing.assert_allclose(moved, [expected.TransformPoint(point) for point in points.tolist()], atol=1e-5)
    assert np.linalg.norm(moved - points, axis=1).max() > 3
    image = sitk.ReadImage(str(brains.studies / "pir.nii.gz"))
    template = sitk.ReadImage(str(brains.bundle.models / "template_dseg.nii.gz"))
    carried = sitk.GetArrayFromImage(sitk.Resample(template, image, found, sitk.sitkNearestNeighbor))
    labels = ask(task, brains, "pir")[0]
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(labels)))
    assert (carried != ours).mean() < 0.002  # places half way between two voxels, and beyond the field's edge
    for path in (file, labels):
        path.unlink()


def test_a_fit_that_does_not_count_is_answered_with_the_reason(
    task: RegistrationInfer, brains: Any, tmp_path: Path
) -> None:
    """Dark where the template is bright: the labels are there, and the answer says what they are worth."""
    scan = nib.load(brains.studies / "pir.nii.gz")
    dark = tmp_path / "dark.nii.gz"
    nib.save(nib.Nifti1Image((1 - scan.get_fdata()).astype(np.float32), scan.affine), dark)
    file, answer = task({"image": str(dark), "device": "cpu"})
    assert answer["status"] == "failed"
    assert answer["reason"].startswith("expected an image that is bright where the template is, got a local correl")
    assert nib.load(file).shape == scan.shape
    Path(file).unlink()


def test_an_image_on_another_grid_is_named_without_its_folder(task: RegistrationInfer, brains: Any) -> None:
    with pytest.raises(LabelError) as caught:
        ask(task, brains, "cropped")
    assert str(caught.value) == (
        "model 'brain_registration': cropped.nii.gz: expected a volume on the template's grid of (24, 28, 24) voxels, "
        "got (22, 28, 24); run `python -m monai_fair prepare`"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"result": "field"}, "option 'result': expected one of labels, transform, got 'field'; choose one"),
        ({"label_map": "../x"}, "option 'label_map': expected one of tissue, roi, got '../x'; choose one"),
        (
            {"result": "transform", "save_label": "true"},
            "expected no save_label with the result transform, which is no label; leave it out",
        ),
    ],
)
def test_options_that_cannot_be_are_named(
    task: RegistrationInfer, brains: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(LabelError) as caught:
        ask(task, brains, "pir", **options)
    assert str(caught.value).startswith("model 'brain_registration'")
    assert str(caught.value).endswith(message)


def test_requests_side_by_side_do_not_mix(task: RegistrationInfer, brains: Any) -> None:
    """Sixteen at once, of two images and both label maps."""
    wanted = [(image, name) for image in ("pir", "lsa") for name in ("tissue", "roi")] * 4

    def one(choice: tuple[str, str]) -> Any:
        torch.set_num_threads(1)
        return in_world(ask(task, brains, choice[0], label_map=choice[1])[0])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, wanted))
    names = {"tissue": "dseg", "roi": "desc-roi_dseg"}
    for (image, name), found in zip(wanted, answers, strict=True):
        np.testing.assert_array_equal(found, in_world(written(brains, image, f"space-T1w_{names[name]}.nii.gz")))


def test_names_of_a_table_beside_the_labels_come_first(copied: ServedBundle) -> None:
    """As BIDS has them; a label that the table does not name keeps its number."""
    (copied.models / "template_dseg.tsv").write_text("index\tname\n1\tfluid\n3\twhite\n")
    assert RegistrationInfer(copied, {}).labels == {"fluid": 1, "2": 2, "white": 3}


def test_other_labels_than_those_of_the_metadata_are_numbered(copied: ServedBundle) -> None:
    path = copied.models / "template_dseg.nii.gz"
    scan = nib.load(path)
    nib.save(nib.Nifti1Image((np.asarray(scan.dataobj) * 10).astype(np.uint8), scan.affine), path)
    assert RegistrationInfer(copied, {}).labels == {"label 10": 10, "label 20": 20, "label 30": 30}


def test_a_bundle_without_labels_or_template_is_refused_at_once(copied: ServedBundle) -> None:
    for path in copied.models.glob("*dseg.nii.gz"):
        path.unlink()
    with pytest.raises(LabelError) as caught:
        RegistrationInfer(copied, {})
    assert str(caught.value).startswith(
        f"{copied.path}: expected a registration that can be built; RegistrationError: "
    )
    assert "expected a label map beside the template, such as template_dseg.nii.gz, found none" in str(caught.value)
    (copied.models / "template_T1w.nii.gz").unlink()
    with pytest.raises(LabelError, match=r"expected template_T1w.nii.gz in \S+models or"):
        RegistrationInfer(copied, {})


def test_weights_of_another_network_are_refused(copied: ServedBundle, brains: Any) -> None:
    """MONAI Label's own task would go on with an untrained network."""
    torch.save({"other": torch.zeros(2)}, copied.model)
    task = RegistrationInfer(copied, {})
    with pytest.raises(RuntimeError, match="Missing key"):
        ask(task, brains, "pir")


# through our app


@pytest.fixture(scope="module")
def server(serve: Any, brains: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    studies = tmp_path_factory.mktemp("served") / "studies"
    shutil.copytree(brains.studies, studies)
    return serve([brains.bundle.path], studies).start()


def test_our_app_answers_with_labels_and_keeps_them(server: Any, brains: Any) -> None:
    file, answer = server.client().infer("brain_registration", "lsa", {"save_label": True, "label_tag": "propagated"})
    expected = in_world(written(brains, "lsa", "space-T1w_dseg.nii.gz"))
    np.testing.assert_array_equal(in_world(Path(file)), expected)
    assert (answer["status"], answer["result"], answer["label_map"]) == ("registered", "labels", "tissue")
    np.testing.assert_array_equal(in_world(server.studies / "labels" / "propagated" / "lsa.nii.gz"), expected)


def test_our_app_answers_with_the_transform(server: Any, brains: Any) -> None:
    file, answer = server.client().infer("brain_registration", "lsa", {"result": "transform"})
    assert file.endswith(".h5")
    assert answer["result"] == "transform"
    found, expected = (
        sitk.ReadTransform(str(path)) for path in (file, written(brains, "lsa", "from-template_to-T1w_xfm.h5"))
    )
    np.testing.assert_allclose(found.TransformPoint((5.0, -9.0, 20.0)), expected.TransformPoint((5.0, -9.0, 20.0)))


@pytest.mark.parametrize(
    ("image", "params", "reason"),
    [
        ("cropped", {}, "cropped.nii.gz: expected a volume on the template's grid of (24, 28, 24) voxels, got (22, 28"),
        ("pir", {"label_map": "lobes"}, "option 'label_map': expected one of tissue, roi, got 'lobes'; choose one"),
    ],
)
def test_our_app_tells_the_client_why_there_is_no_answer(
    server: Any, image: str, params: dict[str, str], reason: str
) -> None:
    form = {"params": json.dumps(params)}
    answer = server.ask("POST", "/infer/brain_registration", params={"image": image}, data=form)
    assert answer.status_code == 400
    assert reason in answer.json()["detail"]
    assert str(server.studies) not in answer.text
