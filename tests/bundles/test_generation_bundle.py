"""Generated images from the bundle: a fit, a registration, subgroups from a file, and a manifest that can be read."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from monai.bundle import ConfigWorkflow

from monai_fair.data import load_datalist, read_manifest, read_volume
from monai_fair.data.artifacts import read_json, sha256
from monai_fair.engines import GeneratedImageSaver, ImageGenerator
from monai_fair.errors import MonaiFairError

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture(scope="module")
def generation(registration: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The bundle with a cohort of its own, because generated images lie below it."""
    folder = tmp_path_factory.mktemp("generation") / "brains"
    shutil.copytree(registration.cohort, folder)
    return type(registration)(folder)


@pytest.fixture(scope="module")
def registered(registration: Any, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registered")
    return registration.infer(folder, fitted / "model.pt", exports=["field", "inverse"], report=False)


@pytest.fixture
def subgroups(generation: Any, tmp_path: Path) -> Path:
    """Subgroup S2 is the first training subject of label 0 and the other training subjects of label 1."""
    table = pd.read_csv(generation.cohort / "manifest.csv", dtype=str)
    first = table[(table["split"] == "train") & (table["label"] == "0")].index[0]
    group = np.where((table["label"] == "1") | (table.index == first), "S2", "S1")
    path = tmp_path / "subgroups.csv"
    table.assign(fitted=1, subgroup=group)[["subject_id", "split", "fitted", "subgroup"]].to_csv(path, index=False)
    return path


def options(fitted: Path, registered: Path, subgroups: Path, **more: Any) -> dict[str, Any]:
    model = {"ckpt_path": str(fitted / "model.pt"), "registered": str(registered), "subgroups": str(subgroups)}
    return {**model, "batch_size": 2, "num_workers": 0, "level": 0.999, **more}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refusal(run: Any, *arguments: Any, **overrides: Any) -> str:
    """Return the message of the error that MONAI's parser wraps."""
    with pytest.raises((MonaiFairError, RuntimeError)) as caught:
        run(*arguments, **overrides)
    error: BaseException = caught.value
    while not isinstance(error, MonaiFairError):
        assert error.__cause__ is not None, f"expected an error of ours, got {error!r}"
        error = error.__cause__
    return str(error)


def test_every_component_builds(generation: Any, fitted: Path, registered: Path, subgroups: Path) -> None:
    output = generation.cohort / "built"
    workflow = generation.workflow("generate", output=output, **options(fitted, registered, subgroups))
    built = generation.build_all(workflow)
    assert isinstance(built["generator"], ImageGenerator)
    assert isinstance(built["saver"], GeneratedImageSaver)
    assert [path.name for path in output.iterdir()] == ["generation.json"]  # binds the folder to its settings


@pytest.mark.parametrize("rule", ["gaussian", "swap"])
def test_images_are_generated_and_the_manifest_is_read_back(
    generation: Any, fitted: Path, registered: Path, subgroups: Path, rule: str
) -> None:
    output = generation.cohort / f"generated_{rule}"
    given = options(fitted, registered, subgroups, rule=rule)
    generation.run("generate", output=output, **given)
    generated = pd.read_csv(output / "generated.csv", dtype=str)
    before = (generation.cohort / "manifest.csv").read_text().splitlines()
    after = (output / "manifest.csv").read_text().splitlines()
    assert len(generated) > 0
    assert len(after) == len(before) + len(generated)
    assert all(new.startswith(f"{old},") for old, new in zip(before, after, strict=False))  # one column more

    rows = load_datalist(output / "manifest.csv", generation.cohort, "train")
    images = {row["subject_id"]: row for row in rows if row["subject_id"].startswith("gen-")}
    train = {row["subject_id"] for row in rows} - set(images)
    for row in generated.to_dict("records"):
        volume = read_volume(images[row["subject_id"]]["image"])
        donor = read_volume(generation.cohort / row["donor"] / "anat" / f"{row['donor']}_T1w.nii.gz")
        assert volume.grid.matches(donor.grid)
        assert donor.array.min() <= volume.array.min() < volume.array.max() <= donor.array.max()
        assert np.corrcoef(volume.array.ravel(), donor.array.ravel())[0, 1] > 0.8
        assert sha256(images[row["subject_id"]]["image"]) == row["sha256"]
        assert {row["donor"], *row["sources"].split()} <= train
        assert float(row["min_det"]) > 0
        assert float(row["distance"]) <= 1
        assert images[row["subject_id"]]["attributes"]["subgroup"] == row["subgroup"]

    # the cells that can be filled are even now
    cells = read_json(output / "manifest.json", "manifest")["generation"]["cells"]
    assert all(cell["generated"] == cell["deficit"] for cell in cells if not cell["reason"])
    table = read_manifest(output / "manifest.csv").table.query("split == 'train'")
    counts = table.groupby(["label", "subgroup"]).size().to_dict()
    assert counts == {
        (cell["label"], cell["subgroup"]): cell["n"] + cell["generated"]
        for cell in cells
        if cell["n"] + cell["generated"]
    }

    first = contents(output)
    (output / "images" / "gen-0001_T1w.nii.gz").unlink()
    (output / "manifest.csv").unlink()
    generation.run("generate", output=output, **given)
    assert contents(output) == first


def test_a_network_the_codes_are_not_of_is_refused(
    generation: Any, fitted: Path, registered: Path, subgroups: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes((fitted / "model.pt").read_bytes() + b"\0")
    given = options(fitted, registered, subgroups, ckpt_path=str(other))
    message = refusal(generation.run, "generate", output=generation.cohort / "refused", **given)
    assert message == (
        f"{registered / 'codes.safetensors'}: expected codes of other.pt, got those of another network; give the "
        "registration and the network that belong together"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("subject_id,group\na,S1\n", "expected a column 'subgroup', found none; add it"),
        ("subject_id,subgroup\na,S1\na,S2\n", "expected one row per subject, 1 have more, such as 'a'"),
    ],
)
def test_a_table_of_subgroups_that_cannot_be_used_is_refused(
    generation: Any, fitted: Path, registered: Path, tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "subgroups.csv"
    path.write_text(text)
    given = options(fitted, registered, path)
    message = refusal(generation.run, "generate", output=generation.cohort / "refused", **given)
    assert message == f"{path}: {problem}"
    assert not (generation.cohort / "refused").exists()


def test_an_output_outside_the_data_root_is_refused(
    generation: Any, fitted: Path, registered: Path, subgroups: Path, tmp_path: Path
) -> None:
    given = options(fitted, registered, subgroups)
    message = refusal(generation.run, "generate", output=tmp_path / "out", **given)
    assert message.startswith(f"{tmp_path / 'out'}: expected an output_dir in a folder of its own below dataset_dir")


def test_generation_repeats_the_fit_line_by_line_where_it_must(generation: Any) -> None:
    train, generate = (
        ConfigWorkflow(generation.files(name), workflow_type=None).parser.config for name in ("train", "generate")
    )
    for key in ("network_def", "network", "space", "grid", "image_shape", "input_settings"):
        assert generate[key] == train[key], key
