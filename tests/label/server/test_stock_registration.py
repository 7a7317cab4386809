"""The registration bundle in MONAI Label's own app: labels on images whose axes run another way, by its real client."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of cgi, which the client reads answers with
    from monailabel.client.client import MONAILabelClient, MONAILabelClientException


# MONAI Label's client leaves its connections open
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

MODEL = "brain_registration"


@pytest.fixture(scope="module")
def server(brains: Any, stock_servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    studies = tmp_path_factory.mktemp("studies")
    shutil.copytree(brains.studies, studies, dirs_exist_ok=True)
    with stock_servers.stock_server(tmp_path_factory.mktemp("stock"), brains.bundle.path, studies) as running:
        yield running


@pytest.fixture
def client(server: Any, tmp_path: Path) -> MONAILabelClient:
    return MONAILabelClient(server.url, tmpdir=str(tmp_path))


def in_world(image: Any) -> tuple[Any, Any]:
    turned = nib.as_closest_canonical(image)
    return np.asarray(turned.dataobj), turned.affine


def dice(one: Any, other: Any) -> float:
    return float(np.mean([2 * ((one == k) & (other == k)).sum() / ((one == k).sum() + (other == k).sum())
                          for k in (1, 2, 3)]))  # fmt: skip


def test_the_model_is_there_with_the_names_of_its_labels(client: MONAILabelClient) -> None:
    model = client.info()["models"][MODEL]
    assert model["type"] == "segmentation"
    assert model["labels"] == {"cerebrospinal fluid": 1, "grey matter": 2, "white matter": 3}


@pytest.mark.parametrize("image", ["pir", "lsa"])
def test_labels_lie_on_the_image_as_bundle_run_puts_them(client: MONAILabelClient, brains: Any, image: str) -> None:
    """Voxel by voxel in the world; and the file has the axes of the image, which are none of RAS."""
    file, params = client.infer(MODEL, image, {})
    scan, found = nib.load(brains.studies / f"{image}.nii.gz"), nib.load(file)
    assert nib.aff2axcodes(scan.affine) == tuple(image.upper())
    assert found.shape == scan.shape
    np.testing.assert_allclose(found.affine, scan.affine, atol=1e-4)
    expected, place = in_world(nib.load(brains.written / f"sub-{image}" / f"sub-{image}_space-T1w_dseg.nii.gz"))
    labels, same_place = in_world(found)
    np.testing.assert_allclose(same_place, place, atol=1e-4)
    assert dice(labels, expected) == 1.0
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.uint8
    # a template that was not moved, or labels whose axes stay, would be seen
    template = np.asarray(nib.load(brains.bundle.models / "template_dseg.nii.gz").dataobj)
    assert dice(labels, template) < 0.95
    assert dice(labels, labels[::-1, :, ::-1]) < 0.95
    assert params["label_names"] == {"cerebrospinal fluid": 1, "grey matter": 2, "white matter": 3}


def test_labels_are_saved_with_the_image(client: MONAILabelClient, server: Any, brains: Any) -> None:
    client.infer(MODEL, "pir", {"save_label": True, "label_tag": "propagated"})
    saved = nib.load(server.studies / "labels" / "propagated" / "pir.nii.gz")
    expected, _ = in_world(nib.load(brains.written / "sub-pir" / "sub-pir_space-T1w_dseg.nii.gz"))
    np.testing.assert_array_equal(in_world(saved)[0], expected)


def test_an_image_on_another_grid_is_refused_with_the_reason(client: MONAILabelClient, server: Any) -> None:
    with pytest.raises(MONAILabelClientException, match="500"):
        client.infer(MODEL, "cropped", {})
    reason = (
        f"monai_fair.errors.RegistrationError: {server.studies}/cropped.nii.gz: expected a volume on the template's "
        "grid of (24, 28, 24) voxels, got (22, 28, 24); run `python -m monai_fair prepare`"
    )
    server.wait_for_log(reason)  # written when the answer is on its way
