"""Discovered subgroups of a server's images: registered by the bundle itself, assigned as the verb would."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle
from monai.utils import set_determinism
from numpy.testing import assert_allclose, assert_array_equal

from monai_fair.data import read_map, sha256
from monai_fair.data.artifacts import write_json
from monai_fair.handlers.best_model import write_model
from monai_fair.label.bundle_scores import scorer_of
from monai_fair.label.image_groups import ImageFacts
from monai_fair.label.image_scoring import score_images
from monai_fair.label.image_states import StoredImage, model_key, told_attributes
from monai_fair.label.next_image import Options, Selector, finders
from monai_fair.label.packing import pack_bundle
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.sidecar import ImageScores, Sidecar, sidecar_path
from monai_fair.simulation import simulate_brain
from monai_fair.subgroups import assign_files
from monai_fair.subgroups.assignment import LocalAssignment, OrderedAssignment
from monai_fair.subgroups.nuisances import LinearEffects
from monai_fair.subgroups.row_rules import RowRule
from monai_fair.subgroups.subgroup_model import SUBGROUP_MODEL, SubgroupModel, write_subgroup_model

pytestmark = [
    # MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
]

BRAIN = Path(__file__).parents[2] / "bundles" / "brain_mri_inr_registration"
OPTIONS = {"network_def#width": 24, "network_def#hidden": 8, "num_workers": 0}
N = 4


@dataclass(frozen=True)
class Served:
    """A bundle with subgroups, images of a server, and what ``bundle run`` made of the same ones."""

    bundle: ServedBundle
    studies: Path
    cohort: Path
    registered: Path

    def images(self, age: str = "50") -> list[StoredImage]:
        return [StoredImage(path.name[:-7], path, {"age": age}) for path in sorted(self.studies.glob("*.nii.gz"))]

    def score(self, images: list[StoredImage], **options: Any) -> dict[str, Any]:
        told = told_attributes(self.bundle)
        return score_images(self.bundle, images, self.studies, scorer_of(self.bundle), told=told, **options)

    def rows(self) -> ImageScores:
        return Sidecar(sidecar_path(self.studies, self.bundle.name), model_key(self.bundle)).read()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("made")
    cohort = simulate_brain(folder / "cohort", n=N, seed=1, anatomy="phantom", shape=(16, 20, 16), num_workers=1)
    fit, settings = folder / "fit", {"image_shape": [16, 20, 16]}
    write_json(fit / "model.json", "model", {"settings": settings, "epoch": 1})
    config = ConfigParser()
    config.read_config(str(BRAIN / "configs" / "inference.yaml"))
    config.update(
        {"bundle_root": str(BRAIN), "dataset_dir": str(cohort), "ckpt_path": str(fit / "model.pt"), **OPTIONS}
    )
    torch.manual_seed(0)
    write_model(config.get_parsed_content("network_def"), fit / "model.pt", settings, epoch=1)
    bundle = pack_bundle(BRAIN, fit, folder / "brain_registration", overrides=OPTIONS, template=cohort)
    run_bundle(
        config_file=str(bundle.path / "configs" / "inference.yaml"), bundle_root=str(bundle.path), report=False,
        dataset_dir=str(cohort), output_dir=str(folder / "registered"), progress=False, exports=["logdet"],
    )  # fmt: skip
    set_determinism(None)
    add_subgroups(bundle, folder / "registered")
    return Served(bundle, folder, cohort, folder / "registered")


def add_subgroups(bundle: ServedBundle, registered: Path) -> None:
    """Two subgroups by the mean log volume of each brain, with an effect of age taken out: all numbers by hand."""
    mask = bundle.models / "template_desc-brain_mask.nii.gz"
    inside = read_map(mask).array > 0
    spacing = float(np.mean(read_map(mask).grid.spacing_mm))
    maps = sorted(registered.glob("sub-*/*logdetjacobian_map.nii.gz"))
    means = np.array([np.nanmean(read_map(path).array[inside]) for path in maps])
    columns = int(inside.sum())
    assign = LocalAssignment(
        np.ones(columns, bool), np.full(columns, 1 / columns), float(means.mean()), np.array([0.5, 0.5]),
        np.array([-1.0, 1.0]) * means.std(), float(means.var()),
    )  # fmt: skip
    effects = LinearEffects(np.full((columns, 1), 0.01), np.full(columns, -0.5), np.zeros(columns))
    model = SubgroupModel(
        assignment=OrderedAssignment(assign, np.array([1, 0])),
        rule=RowRule("log_jacobian", np.zeros(columns), keep_scale=True, effects=effects),
        nuisances=("age",),
        categories=((),),
        block_mm=spacing,  # a block is a voxel
        template_mask_sha256=sha256(mask),
        regions_sha256="",
        registration=None,
        key="by hand",
    )
    write_subgroup_model(bundle.models / "subgroups" / SUBGROUP_MODEL, model)
    write_json(bundle.models / "subgroups" / "discovery.json", "discovery", {"claimed": True, "key": "by hand"})
    pd.DataFrame(
        {"subject_id": ["old"], "split": ["train"], "subgroup": ["S1"], "membership_S1": [1.0], "membership_S2": [0.0]}
    ).to_csv(bundle.models / "subgroups" / "subgroups.csv", index=False)


@pytest.fixture
def served(made: Served, tmp_path: Path) -> Served:
    """The images in a folder of their own; the first has a table beside that says how old."""
    studies = tmp_path / "studies"
    studies.mkdir()
    for path in sorted(made.cohort.glob("sub-*/anat/*T1w.nii.gz")):
        shutil.copy2(path, studies)
    return Served(made.bundle, studies, made.cohort, made.registered)


def expected(served: Served, ages: list[str], out: Path) -> pd.DataFrame:
    """What the verb says of the cohort as ``bundle run`` has registered it."""
    table = pd.read_csv(served.cohort / "manifest.csv", dtype=str, keep_default_na=False)
    table[["subject_id", "image"]].assign(age=ages).to_csv(out / "manifest.csv", index=False)
    path = assign_files(
        served.bundle.models / "subgroups", served.registered, out / "manifest.csv", out / "assigned.csv",
        root=served.cohort,
    )  # fmt: skip
    return pd.read_csv(path).sort_values("subject_id")


def test_probabilities_are_those_of_the_verb(served: Served, tmp_path: Path) -> None:
    assert finders([served.bundle]) == [served.bundle]
    done = served.score(served.images(), part=3)
    assert {name: done[name] for name in ("total", "skipped", "scored", "failed")} == {
        "total": N, "skipped": 0, "scored": N, "failed": 0,
    }  # fmt: skip
    found, wanted = served.rows(), expected(served, ["50"] * N, tmp_path)
    assert found.subgroup_names == ("S1", "S2")
    assert [name[: len(name) - 4] for name in found.image_ids] == wanted["subject_id"].tolist()
    assert_allclose(found.subgroups, wanted[["membership_S1", "membership_S2"]], rtol=0, atol=1e-5)
    assert len({*found.subgroups[:, 0].round(3)}) == N
    assert np.isnan(found.scores).all()


def test_a_patient_of_another_age_is_assigned_anew_and_one_of_none_is_said(served: Served, tmp_path: Path) -> None:
    images = served.images()
    served.score(images)
    first = served.rows()
    images[0] = StoredImage(images[0].image_id, images[0].path, {"age": "90"})
    images[1] = StoredImage(images[1].image_id, images[1].path, {})
    done = served.score(images)
    assert (done["skipped"], done["scored"], done["failed"]) == (N - 2, 1, 1)
    assert done["reasons"] == {images[1].image_id: "nuisance 'age': expected a number, got ''"}
    found, wanted = served.rows(), expected(served, ["90", *["50"] * (N - 1)], tmp_path)
    assert_allclose(found.subgroups[0], wanted[["membership_S1", "membership_S2"]].iloc[0], rtol=0, atol=1e-5)
    assert abs(found.subgroups[0, 0] - first.subgroups[0, 0]) > 0.01
    assert_array_equal(found.subgroups[2:], first.subgroups[2:])


def test_what_is_registered_is_not_registered_again(served: Served) -> None:
    images = served.images()
    served.score(images[:2])
    folder = sidecar_path(served.studies, served.bundle.name).parent
    maps = {path: path.stat().st_mtime_ns for path in folder.glob("registered/*/sub-*/*map.nii.gz")}
    assert len(maps) == 2
    sidecar_path(served.studies, served.bundle.name).unlink()  # as if killed before the rows were written
    served.score(images)
    assert {path: path.stat().st_mtime_ns for path in maps} == maps
    assert len(list(folder.glob("registered/*/sub-*/*map.nii.gz"))) == N
    # another picture under the same name is another subject
    shutil.copy(images[1].path, images[0].path)
    assert served.score(images)["scored"] == 1
    found = served.rows()
    assert_allclose(found.subgroups[0], found.subgroups[1], rtol=0, atol=1e-5)


def test_an_image_that_cannot_be_registered_stops_nothing(served: Served) -> None:
    images = served.images()
    images[1].path.write_bytes(b"no brain")
    for part in (1, 4):  # alone, and among others
        sidecar_path(served.studies, served.bundle.name).unlink(missing_ok=True)
        done = served.score(images, part=part)
        assert (done["scored"], done["failed"]) == (N - 1, 1)
        assert list(done["reasons"]) == [images[1].image_id]
    assert np.isnan(served.rows().subgroups[1]).all()


def test_the_next_image_is_of_the_subgroup_with_the_fewest_labels(served: Served) -> None:
    images = served.images()
    served.score(images)
    selector = Selector([served.bundle], served.studies)
    shares = served.rows().subgroups
    facts = [ImageFacts(image.image_id, False, 0.0, image.attributes) for image in images]
    found = selector.choose("least_represented", images, facts, Options(), now=1000.0)
    assert found is not None
    # the one training subject is in S1, so the image that is most surely in S2 is next
    assert found.image_id == images[int(shares[:, 1].argmax())].image_id
    assert found.group == "subgroup=S2"
    assert found.reason.startswith("subgroup=S2 has 0 labelled images, the fewest of 2 groups")
