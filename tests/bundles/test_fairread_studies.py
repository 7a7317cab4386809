"""FairREAD's studies: what each of them trains, layers and other data by hand, and one study with a sweep after it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from monai.inferers import SimpleInferer

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_tensors, sha256
from monai_fair.engines import BundleStudy
from monai_fair.errors import root_cause
from monai_fair.metrics import read_thresholds
from monai_fair.networks import MarginalInferer

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

STAGE_1 = [["stage1_attributes.yaml"], ["stage1_encoder.yaml"]]


def planned(fairread: Any, folder: Path, *overlays: str, **options: Any) -> BundleStudy:
    workflow = fairread.workflow("study", *overlays, output=folder, tiny_network=False, initialize=False, **options)
    study = workflow.parser.get_parsed_content("training")
    assert isinstance(study, BundleStudy)
    return study


def chains(study: BundleStudy) -> dict[str, list[list[Any]]]:
    """Arm to its stages in the first repeat: file names after train.yaml, and keys in place of a file."""
    found = {}
    for run in study.runs[: len(study.plan.arms)]:
        paths = [[Path(path) for path in stage] for stage in run.chain]
        assert all(stage[0].name == "train.yaml" for stage in paths)
        found[run.name.split("/")[0]] = [
            [yaml.safe_load(path.read_text()) if path.parent.name == "overlays" else path.name for path in stage[1:]]
            for stage in paths
        ]
    return found


def test_the_study_has_every_stage_of_every_arm(fairread: Any, tmp_path: Path) -> None:
    study = planned(fairread, tmp_path)
    evaluation = ["evaluate.yaml", {"save_layers": True}]
    assert chains(study) == {
        "erm": [["erm.yaml"], ["erm.yaml", *evaluation]],
        "adversary": [["adversary.yaml"], ["adversary.yaml", *evaluation]],
        "orthogonality": [*STAGE_1, ["stage1_encoder.yaml", *evaluation]],
        "fairread": [*STAGE_1, [], evaluation],
        "fairread_reference": [*STAGE_1, [], [*evaluation, "published_thresholds.yaml"]],
        "fairread_erased": [*STAGE_1, ["stage1_erasure.yaml"], ["erased.yaml"], ["erased.yaml", *evaluation]],
    }
    assert [run.name for run in study.runs[6:8]] == ["erm/seed_1", "adversary/seed_1"]
    # both evaluations of FairREAD's model start from the one training of it
    same = ("fairread/", "fairread_reference/")
    assert len({run.after for run in study.runs if run.name.startswith(same)}) == len(study.seeds) == 5


def test_the_protocol_has_the_published_folds_and_thresholds(fairread: Any, tmp_path: Path) -> None:
    study = planned(fairread, tmp_path, "protocol")
    found = chains(study)
    assert list(found) == ["erm", "adversary", "orthogonality", "fairread"]
    assert all("published_thresholds.yaml" in stages[-1] for stages in found.values())
    assert [run.name for run in study.runs[::4]] == [f"erm/fold_{fold}/seed_0" for fold in range(5)]
    options = fairread.workflow("train", "evaluate", "published_thresholds", output=tmp_path, initialize=False).parser
    assert {name: options[name] for name in ("threshold_split", "threshold_min_count", "threshold_shrinkage")} == {
        "threshold_split": "train", "threshold_min_count": 1, "threshold_shrinkage": 0.0,
    }  # fmt: skip
    assert {"train", "test"} <= set(options["evaluate_splits"])


def test_the_sweep_changes_one_option_of_stage_2(fairread: Any, tmp_path: Path) -> None:
    study = planned(fairread, tmp_path, "sweep", values=[0, 0.5], seeds=[0])
    found = chains(study)
    assert list(found) == ["erm", "fairread_0", "fairread_0.5"]
    assert found["fairread_0.5"][:3] == [*STAGE_1, [{"adversary_strength": 0.5}]]
    assert len({run.after for run in study.runs[1:]}) == 1  # stage 1 is trained once
    workflow = fairread.workflow("study", "sweep", output=tmp_path, initialize=False, values=[0, 0.5])
    assert workflow.parser.get_parsed_content("swept").record == {
        "parameter": "adversary_strength", "runs": {"fairread_0": 0, "fairread_0.5": 0.5},
    }  # fmt: skip
    first = planned(fairread, tmp_path / "b", "sweep", parameter="column_weight", values=[1, 2], stage=1, seeds=[0])
    assert chains(first)["fairread_2"][:3] == [STAGE_1[0], ["stage1_encoder.yaml", {"column_weight": 2}], []]


def test_the_ablation_leaves_one_part_out_at_a_time(fairread: Any, tmp_path: Path) -> None:
    study = planned(fairread, tmp_path, "ablation", seeds=[0])
    found = chains(study)
    whole = found.pop("fairread")
    assert whole[:3] == [*STAGE_1, []]
    changes = {
        arm: [own for stage in stages for own in stage if isinstance(own, dict) and "save_layers" not in own]
        for arm, stages in found.items()
    }
    assert changes == {
        "erm": [],
        "no_column_loss": [{"column_weight": 0}],
        "no_row_loss": [{"row_weight": 0}],
        "no_adversary": [{"adversary_strength": 0}] * 2,  # the network is evaluated as it was trained
        "no_refusion": [],
        "one_threshold": [{"threshold_groups": [], "threshold_towards": "pooled"}],
    }
    assert found["no_refusion"][:2] == STAGE_1
    assert len(found["no_refusion"]) == 3
    # 2 of stage 1 for the whole method, 2 encoders without a loss, and the model that has two evaluations
    names = {run.after.name.split("-")[0] for run in study.runs if run.after}
    assert names == {"shared/stage1_encoder", "shared/train"}
    assert len({run.after.name for run in study.runs if run.after}) == 4


@pytest.mark.parametrize("overlay", ["sweep", "ablation", "protocol"])
def test_keys_in_place_of_a_config_file_are_known(fairread: Any, tmp_path: Path, overlay: str) -> None:
    for run in planned(fairread, tmp_path, overlay, seeds=[0]).runs:
        for stage in run.chain:
            below: set[str] = set()
            for path in stage:
                content = yaml.safe_load(Path(path).read_text())
                assert Path(path).parent.name != "overlays" or set(content) <= below, path
                below |= set(content)


def scored(fairread: Any, folder: Path, *overlays: str, **options: Any) -> Path:
    """Evaluate; with a threshold for every group, however small."""
    return fairread.train(folder, *overlays, "evaluate", threshold_min_count=1, **options)


@pytest.mark.parametrize(
    ("overlays", "model", "names"),
    [
        ((), "model", {"map", "fused_1", "fused_2", "mu", "sigma"}),
        (("stage1_encoder",), "stage1_encoder", {"map", "embedding", "attribute_embedding"}),
    ],
    ids=["stage 2", "stage 1b"],
)
def test_an_evaluation_keeps_the_layers_of_its_network(
    fairread: Any, fused: Path, tmp_path: Path, overlays: tuple[str, ...], model: str, names: set[str]
) -> None:
    for name in (f"{model}.pt", f"{model}.json", "stage1_attributes.pt"):
        if not (tmp_path / name).exists():
            shutil.copy(fused / name, tmp_path)
    scored(fairread, tmp_path, *overlays, save_layers=True)
    layers, metadata = read_tensors(tmp_path / "layers.safetensors")
    assert layers.keys() == names
    rows = len(read_predictions(tmp_path / "predictions.csv").table)
    assert {len(values) for values in layers.values()} == {rows}
    assert all(np.isfinite(values).all() and values.std() > 0 for values in layers.values())
    # thresholds were written into the table since
    assert metadata["predictions_sha256"] == sha256(tmp_path / "predictions.csv")
    features, metadata = read_tensors(tmp_path / "features.safetensors")
    assert metadata["predictions_sha256"] == sha256(tmp_path / "predictions.csv")
    last = layers["embedding"] if "embedding" in layers else layers["fused_2"]
    np.testing.assert_allclose(features["features"], last, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def elsewhere(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other subjects: the cohort's images under other names, training rows among them, some groups unknown or new."""
    folder = tmp_path_factory.mktemp("elsewhere")
    table = pd.read_csv(cohort / "manifest.csv", dtype=str, keep_default_na=False).drop(
        columns="sha256", errors="ignore"
    )
    table["subject_id"] = "other_" + table["subject_id"]
    table.loc[:1, "sex"] = ""
    table.loc[2:3, "age_group"] = "unheard of"
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.mark.parametrize(
    ("names", "inferer"),
    [
        (("train", "evaluate", "external"), MarginalInferer),
        (("train", "erm", "evaluate", "published_thresholds", "external"), SimpleInferer),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else value.__name__,
)
def test_every_component_builds_for_other_data(
    fairread: Any, fused: Path, elsewhere: Path, tmp_path: Path, names: tuple[str, ...], inferer: type
) -> None:
    options = {"ckpt_path": str(fused / "model.pt"), "external_manifest": str(elsewhere)}
    workflow = fairread.workflow(*names, output=tmp_path / "out", external_dir=str(fairread.cohort), **options)
    built = fairread.build_all(workflow)
    assert isinstance(built["validate#evaluator"].inferer, inferer)
    assert len(built["validate#dataset"]) == 60
    assert not (tmp_path / "out").exists()


def external(fairread: Any, folder: Path, manifest: Path, *overlays: str, **options: Any) -> pd.DataFrame:
    there = {"external_manifest": str(manifest), "external_dir": str(fairread.cohort)}
    fairread.train(folder, *overlays, "evaluate", "external", **there, **options)
    return read_predictions(folder / "external" / "predictions.csv").table.set_index("image")


@pytest.mark.parametrize("told", [True, False], ids=["told what is missing", "averaged over"])
def test_other_data_are_scored_by_the_thresholds_of_the_model(
    fairread: Any, fused: Path, elsewhere: Path, tmp_path: Path, told: bool
) -> None:
    options = {"missing_attributes": told}
    if told:
        for name in ("model.pt", "model.json"):
            shutil.copy(fused / name, tmp_path)
    else:
        for name in ("stage1_attributes", "stage1_encoder"):
            shutil.copy(fused / f"{name}.pt", tmp_path)
        fairread.train(tmp_path, **options)
    scored(fairread, tmp_path, **options)
    before = {path.name: sha256(path) for path in tmp_path.iterdir()}
    found = external(fairread, tmp_path, elsewhere, **options)
    assert {path.name: sha256(path) for path in tmp_path.iterdir() if path.is_file()} == before  # nothing is fitted
    assert set(found["split"]) == {"test"}
    assert len(found) == 60
    stored = read_thresholds(tmp_path / "thresholds.json")
    assert found["threshold"].tolist() == stored.for_groups(found).tolist()
    assert set(found["threshold"].iloc[:4]) == {stored.pooled}
    # images that are known from the evaluation have its scores
    own = read_predictions(tmp_path / "predictions.csv").table.set_index("image")
    same = [image for image in own.index if image in set(found.index[4:])]
    assert len(same) > 15
    np.testing.assert_allclose(found.loc[same, "score"], own.loc[same, "score"], rtol=0, atol=1e-6)
    # and inference, which is told nothing of labels, says the same of all
    options |= {"manifest": str(elsewhere)}
    inferred = fairread.infer(tmp_path / "inferred", tmp_path / "model.pt", **options) / "predictions.csv"
    again = read_predictions(inferred).table.set_index("image").loc[found.index]
    np.testing.assert_allclose(found["score"], again["score"], rtol=0, atol=1e-6)


def test_a_network_without_attributes_scores_other_data(
    fairread: Any, fused: Path, elsewhere: Path, tmp_path: Path
) -> None:
    for name in ("stage1_encoder.pt", "stage1_encoder.json", "stage1_attributes.pt"):
        shutil.copy(fused / name, tmp_path)
    scored(fairread, tmp_path, "stage1_encoder")
    own = read_predictions(tmp_path / "predictions.csv").table.set_index("image")["score"]
    found = external(fairread, tmp_path, elsewhere, "stage1_encoder").loc[own.index, "score"]
    np.testing.assert_allclose(found, own, rtol=0, atol=1e-6)


def test_training_rows_are_no_other_data(fairread: Any, fused: Path, cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(fused, tmp_path / "model")
    with pytest.raises(RuntimeError) as caught:
        external(fairread, tmp_path / "model", cohort / "manifest.csv")
    assert "expected rows that no model learned from" in root_cause(caught.value)
    assert not (tmp_path / "model" / "external").exists()


def run_study(fairread: Any, folder: Path, *overlays: str, **options: Any) -> None:
    """Do what ``python -m monai.bundle run`` does, on small images and with few resamples."""
    from monai.bundle import run

    tiny = {key: value for key, value in fairread.tiny.items() if key not in ("attributes", "missing_attributes")}
    network = {"init_features": 8, "growth_rate": 4, "block_config": [1, 1]}
    few = {"resamples": 100, "permutations": 100}
    sections = {f"audit#{key}": value for key, value in {**few, "embeddings": False}.items()}
    run(
        config_file=fairread.files("study", *overlays),
        bundle_root=str(fairread.root),
        dataset_dir=str(fairread.cohort),
        output_dir=str(folder),
        base=["train.yaml", "small.yaml"],
        attributes=fairread.tiny["attributes"],
        missing_attributes=True,
        overrides={**tiny, "latent": 8, **{f"backbone_def#{key}": value for key, value in network.items()}},
        jobs=2,
        logging_file=False,
        **sections,
        **{f"external_audit#{key}": value for key, value in few.items()},
        **options,
    )


def _counts(value: Any) -> list[int]:
    """Every whole number n in a document."""
    if isinstance(value, list):
        return [n for item in value for n in _counts(item)]
    if not isinstance(value, dict):
        return []
    own = [value["n"]] if isinstance(value.get("n"), int) else []
    return own + [n for item in value.values() for n in _counts(item)]


def test_a_study_ends_with_a_report_on_each_of_the_data_and_a_sweep_goes_on_from_it(
    fairread: Any, elsewhere: Path, tmp_path: Path
) -> None:
    # one model with two evaluations
    arms = {"fairread": "@fairread", "one": {"trainings": "@fairread", "evaluate": [{"threshold_groups": []}]}}
    data = {"there": {"manifest": str(elsewhere), "dataset_dir": str(fairread.cohort)}}
    run_study(fairread, tmp_path, arms=arms, seeds=[0], external=data)
    own, one = (read_predictions(tmp_path / arm / "seed_0" / "predictions.csv").table for arm in arms)
    assert own["score"].tolist() == one["score"].tolist()
    assert one["threshold"].nunique() == 1
    assert (tmp_path / "fairread" / "seed_0" / "layers.safetensors").is_file()
    for folder, n in ((tmp_path, (own["split"] == "test").sum()), (tmp_path / "external_there", 60)):
        assert (folder / "report.html").is_file()
        results = json.loads((folder / "metrics.json").read_text())
        assert [run["name"] for run in results["runs"]] == list(arms)
        assert max(_counts(results)) == n

    before = {path: path.read_bytes() for path in tmp_path.glob("shared/*/seed_0/*")}
    run_study(fairread, tmp_path, "sweep", arms="${**@swept.arms}", values=[0, 0.5], seeds=[0])
    assert {path: path.read_bytes() for path in tmp_path.glob("shared/*/seed_0/*")} == before
    swept = ["fairread_0", "fairread_0.5"]
    none, half = (read_predictions(tmp_path / arm / "seed_0" / "predictions.csv").table["score"] for arm in swept)
    assert none.tolist() != half.tolist()
    results = json.loads((tmp_path / "metrics.json").read_text())
    assert results["sweep"]["parameter"] == "adversary_strength"
    assert [run["name"] for run in results["runs"]] == swept


@pytest.mark.slow
def test_the_whole_protocol_runs_over_folds_and_again_does_nothing(
    fairread: Any, elsewhere: Path, tmp_path: Path
) -> None:
    data = {"there": {"manifest": str(elsewhere), "dataset_dir": str(fairread.cohort)}}
    for _ in range(2):
        run_study(fairread, tmp_path, "protocol", folds=2, external=data)
        stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*/seed_0/*")}
    run_study(fairread, tmp_path, "protocol", folds=2, external=data)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*/seed_0/*")} == stamps
    results = json.loads((tmp_path / "metrics.json").read_text())
    assert [(run["name"], run["seeds"]) for run in results["runs"]] == [
        (arm, ["1", "2"]) for arm in ("erm", "adversary", "orthogonality", "fairread")
    ]
    tests = {
        frozenset(table.loc[table["split"] == "test", "image"])
        for path in tmp_path.glob("erm/fold_*/seed_0/predictions.csv")
        for table in [read_predictions(path).table]
    }
    assert len(tests) == 1  # the same rows are tested in every fold
    assert (tmp_path / "external_there" / "report.html").is_file()


@pytest.mark.slow
def test_the_whole_ablation_runs(fairread: Any, tmp_path: Path) -> None:
    run_study(fairread, tmp_path, "ablation", seeds=[0])
    names = [run["name"] for run in json.loads((tmp_path / "metrics.json").read_text())["runs"]]
    assert names == [
        "erm", "fairread", "no_column_loss", "no_row_loss", "no_adversary", "no_refusion", "one_threshold",
    ]  # fmt: skip
    scores = {tuple(read_predictions(tmp_path / arm / "seed_0" / "predictions.csv").table["score"]) for arm in names}
    assert len(scores) == 6  # one model has two evaluations
