"""Packed bundles: one folder that scores as the run it was made of, or nothing and every reason."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle
from monai.utils import set_determinism

from monai_fair.__main__ import main
from monai_fair.data import attribute_codes, build_manifest, load_datalist, write_manifest
from monai_fair.data.artifacts import read_json, write_json
from monai_fair.errors import LabelError
from monai_fair.handlers.best_model import write_model
from monai_fair.label.packing import pack_bundle
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.verbs import pack
from monai_fair.metrics import ThresholdFitter, write_thresholds
from monai_fair.simulation import simulate_brain, simulate_skin

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
# In the environment of MONAI Label, MONAI says that a decoder of DICOM files has no GPU; nothing here is DICOM.
pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
]

ROOT = Path(__file__).parents[2]
SKIN, FAIRREAD, BRAIN = (
    ROOT / "bundles" / name
    for name in ("fair_image_classification", "fairread_image_classification", "brain_mri_inr_registration")
)
CLASSIFIER = {"network_def#layers": [1, 1, 1, 1], "network_def#block_inplanes": [4, 8, 8, 16], "num_workers": 0}
BACKBONE = {"_target_": "monai.networks.nets.DenseNet", "spatial_dims": 2, "in_channels": 3, "out_channels": 1,
            "init_features": 8, "growth_rate": 4, "block_config": [1, 1]}  # fmt: skip
REFUSION = {"latent": 8, "backbone_def": BACKBONE, "num_workers": 0}
REGISTRATION = {"network_def#width": 24, "network_def#hidden": 8, "num_workers": 0}
INPUT = {"image_size": 28, "load_size": 32, "num_classes": 2, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}


def trained(bundle: Path, folder: Path, settings: dict[str, Any], **options: Any) -> Path:
    """Write a network as it starts, as a training would."""
    write_json(folder / "model.json", "model", {"settings": settings, "epoch": 1})
    config = ConfigParser()
    config.read_config(str(bundle / "configs" / "inference.yaml"))
    config.update({"bundle_root": str(bundle), "ckpt_path": str(folder / "model.pt"), **options})
    torch.manual_seed(0)
    write_model(config.get_parsed_content("network_def"), folder / "model.pt", settings, epoch=1)
    return folder


def infer(bundle: Path, output: Path, **options: Any) -> Path:
    """Do what ``python -m monai.bundle run`` does."""
    config = str(bundle / "configs" / "inference.yaml")
    run_bundle(config_file=config, bundle_root=str(bundle), output_dir=str(output), progress=False, **options)
    set_determinism(None)
    return output / "predictions.csv"


def told_apart(bundle: ServedBundle) -> dict[str, Any]:
    metadata = json.loads((bundle.path / "configs" / "metadata.json").read_text())
    jsonschema.validate(metadata, json.loads((ROOT / "tests" / "bundles" / "meta_schema.json").read_text()))
    pred = metadata["network_data_format"]["outputs"]["pred"]
    return dict(pred["channel_def"], n=pred["num_channels"])


def refusal(*given: Any, **options: Any) -> str:
    with pytest.raises(LabelError) as caught:
        pack_bundle(*given, **options)
    out = Path(given[2])
    assert not out.exists() or out.is_file() or list(out.iterdir())
    assert not list(out.parent.glob(".*"))
    return str(caught.value)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    simulate_skin(folder, n=60, seed=0, size=32, num_workers=1)
    write_manifest(build_manifest("ham10000", folder, split=folder / "split.csv"), folder / "manifest.csv")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(SKIN, tmp_path_factory.mktemp("run"), INPUT, **CLASSIFIER)


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sex = pd.DataFrame({"sex": ["female", "male"] * 8})
    fitted = ThresholdFitter(attributes=["sex"], min_count=1).fit(
        [0, 0, 1, 1] * 4, [0.1, 0.2, 0.6, 0.7] * 4, sex, split="val"
    )
    return write_thresholds(tmp_path_factory.mktemp("t") / "some.json", fitted, source="predictions.csv")


@pytest.fixture(scope="module")
def fairread(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = load_datalist(cohort / "manifest.csv", cohort, split="train")
    codes = attribute_codes(rows, {"sex": None, "age_group": ["<60", ">=60"]})
    settings = {**INPUT, "missing_attributes": True, "attributes": codes.record()}
    return trained(FAIRREAD, tmp_path_factory.mktemp("run"), settings, missing_attributes=True, **REFUSION)


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brains")
    return simulate_brain(folder, n=3, seed=1, anatomy="phantom", shape=(16, 20, 16), num_workers=1)


@pytest.fixture(scope="module")
def fit(brains: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"image_shape": [16, 20, 16], "spacing": 4.0, "width": 24, "integration_steps": 0}
    return trained(BRAIN, tmp_path_factory.mktemp("fit"), settings, dataset_dir=str(brains), **REGISTRATION)


def test_a_packed_classifier_scores_as_the_run_it_is_made_of(cohort: Path, run: Path, tmp_path: Path) -> None:
    packed = pack_bundle(SKIN, run, tmp_path / "served" / "skin_classification", overrides=CLASSIFIER)
    told = {**CLASSIFIER, "image_size": 28, "mean": INPUT["mean"], "std": INPUT["std"]}
    model = {"ckpt_path": str(run / "model.pt"), "dataset_dir": str(cohort)}
    original = infer(SKIN, tmp_path / "original", **told, **model)
    served = infer(packed.path, tmp_path / "packed", dataset_dir=str(cohort))
    assert served.read_bytes() == original.read_bytes()
    assert pd.read_csv(served)["score"].nunique() == 60
    assert packed == ServedBundle.read(packed.path)
    assert packed == ServedBundle("skin_classification", tmp_path / "served" / "skin_classification", "classification")


def test_a_packed_fairread_model_finds_its_codes_and_thresholds(
    cohort: Path, fairread: Path, thresholds: Path, tmp_path: Path
) -> None:
    packed = pack_bundle(FAIRREAD, fairread, tmp_path / "a_classification", overrides=REFUSION, thresholds=thresholds)
    told = {**REFUSION, "image_size": 28, "mean": INPUT["mean"], "std": INPUT["std"], "missing_attributes": True}
    told |= {"ckpt_path": str(fairread / "model.pt"), "thresholds_path": str(thresholds), "dataset_dir": str(cohort)}
    original = infer(FAIRREAD, tmp_path / "original", **told)
    served = infer(packed.path, tmp_path / "packed", dataset_dir=str(cohort))
    assert served.read_bytes() == original.read_bytes()
    assert pd.read_csv(served)["threshold"].nunique() == 2
    # a training that goes on has the levels that the model knows
    train = ConfigParser.load_config_file(packed.path / "configs" / "train.yaml")
    assert train["attributes"] == {"sex": ["female", "male"], "age_group": ["<60", ">=60"]}
    assert train["missing_attributes"] is True


def test_a_packed_registration_has_its_template_with_it(brains: Path, fit: Path, tmp_path: Path) -> None:
    packed = pack_bundle(BRAIN, fit, tmp_path / "brain_registration", overrides=REGISTRATION, template=brains)
    config = packed.config()
    # a template that happens to lie in dataset_dir is not the one that it was fitted to
    config["dataset_dir"] = str(tmp_path)
    space = config.get_parsed_content("space")
    assert Path(space.source) == packed.models / "template_T1w.nii.gz"
    assert Path(space.mask_source) == packed.models / "template_desc-brain_mask.nii.gz"
    assert set(space.labels) == {"tissue", "roi"}
    assert {path.name for path in packed.models.glob("template*")} == {
        "template_T1w.nii.gz", "template_desc-brain_mask.nii.gz", "template_dseg.nii.gz",
        "template_desc-roi_dseg.nii.gz",
    }  # fmt: skip
    train = ConfigParser.load_config_file(packed.path / "configs" / "train.yaml")
    assert train["space"]["dataset_dir"] == config["space"]["dataset_dir"] == "$@bundle_root + '/models'"


def test_a_registration_without_its_template_is_refused(brains: Path, fit: Path, tmp_path: Path) -> None:
    given = (BRAIN, fit, tmp_path / "brain_registration")
    text = refusal(*given, overrides=REGISTRATION)
    assert "expected a network that can be built; RegistrationError: template: expected template_T1w.nii.gz" in text
    assert f" or {given[2]}/models, found none" in text
    text = refusal(*given, overrides=REGISTRATION, template=tmp_path)
    assert text.startswith(f"pack {given[2]}: template: template: expected template_T1w.nii.gz in {tmp_path}")
    other = simulate_brain(tmp_path / "other", n=1, seed=1, anatomy="phantom", shape=(24, 20, 16), num_workers=1)
    text = refusal(*given, overrides=REGISTRATION, template=other)
    assert "input_settings, image_shape: expected [16, 20, 16], as in training, got [24, 20, 16]" in text


@pytest.mark.usefixtures("restored")
def test_a_packed_training_runs_and_its_model_fits_the_bundle(
    cohort: Path, run: Path, thresholds: Path, tmp_path: Path
) -> None:
    told = {**CLASSIFIER, "pretrained": False, "max_epochs": 1, "batch_size": 8}  # some are keys of train.yaml alone
    packed = pack_bundle(SKIN, run, tmp_path / "skin_classification", overrides=told, thresholds=thresholds)
    config = str(packed.path / "configs" / "train.yaml")
    places = {"bundle_root": str(packed.path), "dataset_dir": str(cohort), "output_dir": str(tmp_path / "more")}
    run_bundle(config_file=config, progress=False, **places)
    assert "max_epochs" not in packed.config()
    again = pack_bundle(packed.path, tmp_path / "more", tmp_path / "again_classification")
    assert again.thresholds is None  # they were of the earlier model
    weights = [torch.load(bundle.model, weights_only=True)["fc.weight"] for bundle in (packed, again)]
    assert weights[0].shape == weights[1].shape
    assert not torch.equal(*weights)


def test_all_that_is_given_is_packed_and_nothing_else(
    cohort: Path, run: Path, thresholds: Path, tmp_path: Path
) -> None:
    (tmp_path / "found").mkdir()
    write_json(tmp_path / "found" / "discovery.json", "discovery", {"claims": []})
    for name in ("subgroups.csv", "subgroup_model.safetensors", "discovery.html"):
        (tmp_path / "found" / name).write_text(name)
    audit = write_json(tmp_path / "audit.json", "audit", {"targets": []})
    packed = pack_bundle(
        SKIN, run / "model.pt", tmp_path / "skin_classification", overrides=CLASSIFIER, thresholds=thresholds,
        audit=audit, manifest=cohort / "manifest.csv", subgroups=tmp_path / "found",
    )  # fmt: skip
    found = {str(path.relative_to(packed.models)) for path in packed.models.rglob("*") if path.is_file()}
    assert found == {
        "model.pt", "model.json", "thresholds.json", "metrics.json", "manifest.csv", "subgroups/discovery.json",
        "subgroups/subgroups.csv", "subgroups/subgroup_model.safetensors",
    }  # fmt: skip
    copies = {packed.model: run / "model.pt", packed.audit: audit, packed.manifest: cohort / "manifest.csv"}
    assert all(copy is not None and copy.read_bytes() == at.read_bytes() for copy, at in copies.items())
    others = {path.name for path in (SKIN / "configs").iterdir()}
    assert {path.name for path in (packed.path / "configs").iterdir()} == others
    assert (packed.path / "docs" / "README.md").is_file()
    changed = {
        name for name in others if (packed.path / "configs" / name).read_text() != (SKIN / "configs" / name).read_text()
    }
    assert changed == {"inference.yaml", "train.yaml", "metadata.json"}


def test_overlays_are_laid_over_both_or_as_told(tmp_path: Path) -> None:
    (tmp_path / "narrow.yaml").write_text("network_def#block_inplanes: [4, 8, 8, 16]\n")
    run = trained(SKIN, tmp_path / "run", {**INPUT, "load_size": 36}, **CLASSIFIER)
    overlays, told = ["small.yaml", str(tmp_path / "narrow.yaml")], {"load_size": 36}
    packed = pack_bundle(SKIN, run, tmp_path / "a_classification", configs=overlays, overrides=told)
    train = ConfigParser.load_config_file(packed.path / "configs" / "train.yaml")
    for config in (train, packed.config().get()):
        assert config["network_def"]["block_inplanes"] == [4, 8, 8, 16]
        # of the training, not of the overlay
        assert (config["image_size"], config["load_size"]) == (28, 36)
    options = {"configs": overlays, "train_configs": [*overlays, "nir.yaml"], "overrides": told}
    packed = pack_bundle(SKIN, run, tmp_path / "b_classification", **options)
    train = ConfigParser.load_config_file(packed.path / "configs" / "train.yaml")
    assert train["train"]["more_handlers"] == ["@nir"]
    assert train["nir"]["_target_"] == "monai_fair.handlers.NIRHandler"
    assert "train" not in packed.config()
    text = refusal(SKIN, run, tmp_path / "c_classification", configs=overlays)
    assert "input_settings, load_size: expected 36, as in training, got 32; give the value of the training" in text


@pytest.mark.parametrize(
    ("labels", "named"),
    [([], "disease"), (["malignant"], "malignant"), (["benign", "malignant"], "malignant"),
     (["Background", "lesion"], "lesion")],
)  # fmt: skip
def test_two_classes_are_one_output_of_the_positive_ones_name(
    run: Path, labels: list[str], named: str, tmp_path: Path
) -> None:
    packed = pack_bundle(SKIN, run, tmp_path / "a_classification", overrides=CLASSIFIER, labels=labels)
    assert told_apart(packed) == {"0": named, "n": 1}
    metadata = json.loads((packed.path / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [28, 28]


def test_several_classes_need_as_many_names(tmp_path: Path) -> None:
    run = trained(SKIN, tmp_path / "run", {**INPUT, "num_classes": 3}, num_classes=3, **CLASSIFIER)
    given, options = (SKIN, run, tmp_path / "a_classification"), {"overrides": CLASSIFIER}
    for labels, reason in {
        (): "expected a name for each of 3 outputs, got disease; give --labels",
        ("a", "b"): "labels: expected 3 names, got a, b; name every class once",
        ("a", "b", "A"): "labels: expected names that differ in more than case, got a, b, A; rename one",
        ("a", "b", ""): "labels: expected names that differ in more than case, got a, b, ; rename one",
        ("a", "b", "background"): "labels: expected another name than background, which MONAI Label leaves out",
    }.items():
        assert reason in refusal(*given, labels=labels, **options)
    packed = pack_bundle(*given, labels=["nevus", "melanoma", "other"], **options)
    assert told_apart(packed) == {"0": "nevus", "1": "melanoma", "2": "other", "n": 3}


def test_what_does_not_fit_the_training_is_refused(run: Path, tmp_path: Path) -> None:
    given = (SKIN, run, tmp_path / "a_classification")
    text = refusal(*given)
    assert text.startswith(f"pack {given[2]}: models/model.pt: expected the ")
    assert text.endswith("; give the overlays and options of its training")
    text = refusal(*given, overrides={**CLASSIFIER, "image_size": 56})
    assert "input_settings, image_size: expected 28, as in training, got 56; give the value of the training" in text
    text = refusal(*given, overrides={**CLASSIFIER, "imagesize": 28, "network_def#layer": [1]})
    assert [line.strip() for line in text.splitlines()] == [
        f"pack {given[2]}: 2 problems",
        "1. imagesize: expected a key of inference.yaml or train.yaml, found none; did you mean image_size?",
        "2. network_def#layer: expected a key of inference.yaml or train.yaml, found none; "
        "did you mean network_def#layers?",
    ]


def test_all_faults_of_what_is_given_are_in_one_message(run: Path, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "brain").mkdir()
    (tmp_path / "served" / "brain" / "notes.txt").write_text("mine")
    (tmp_path / "manifest.csv").write_text("subject_id\na\n")
    text = refusal(
        SKIN, tmp_path / "none", tmp_path / "served" / "brain", configs=["tiny.yaml"], thresholds=run / "model.json",
        audit=tmp_path / "metrics.json", manifest=tmp_path / "manifest.csv", subgroups=tmp_path, template=tmp_path,
    )  # fmt: skip
    first, *lines = text.splitlines()
    assert first == f"pack {tmp_path / 'served' / 'brain'}: 10 problems"
    kinds = [line.split(". ", 1)[1].partition(":")[0] for line in lines]
    assert kinds == [
        "configs",
        "out",
        "out",
        "run",
        "thresholds",
        "audit",
        "manifest",
        "subgroups",
        "subgroups",
        "template",
    ]
    assert [path.name for path in (tmp_path / "served" / "brain").iterdir()] == ["notes.txt"]


def test_a_folder_that_is_no_bundle_is_refused(run: Path, tmp_path: Path) -> None:
    text = refusal(run, run, tmp_path / "a")
    assert "bundle: expected configs/inference.yaml in" in text
    assert "bundle: expected configs/metadata.json in" in text


def test_a_template_for_what_takes_none_is_refused(brains: Path, run: Path, tmp_path: Path) -> None:
    text = refusal(SKIN, run, tmp_path / "a_classification", overrides=CLASSIFIER, template=brains)
    assert "template: expected a bundle that reads one (space#dataset_dir), got another; leave --template out" in text


def test_the_verb_takes_what_a_shell_can_write(
    run: Path, thresholds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--bundle", str(SKIN), "--run", str(run), "--thresholds", str(thresholds), "--labels", "benign,malignant"]
    network = "{'network_def#layers': [1,1,1,1], 'network_def#block_inplanes': [4,8,8,16], 'learning_rate': 1e-5}"
    monkeypatch.setattr(
        sys, "argv", ["monai_fair", "pack", *given, "--out", "served/a_classification", "--overrides", network]
    )
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["a_classification: classification", "settings of the training: yes", "thresholds: yes",
                     "audit: none", "manifest: none", "subgroups: none", "served/a_classification"]  # fmt: skip
    packed = ServedBundle.read("served/a_classification")
    assert told_apart(packed)["0"] == "malignant"
    assert ConfigParser.load_config_file(packed.path / "configs" / "train.yaml")["learning_rate"] == 1e-5
    more = ["pack", "served/a_classification", str(run), "served/b_classification"]
    monkeypatch.setattr(
        sys, "argv", ["monai_fair", *more, "--overrides", "batch_size=8,save_features=true,manifest=m.csv"]
    )
    main()
    config = ServedBundle.read("served/b_classification").config()
    assert [config[key] for key in ("batch_size", "save_features", "manifest")] == [8, True, "m.csv"]
    monkeypatch.setattr(sys, "argv", ["monai_fair", *more])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "out: expected a new folder, found something at served/b_classification" in capsys.readouterr().err
    assert read_json(packed.models / "model.json", "model")["settings"] == INPUT


def test_the_verb_says_that_settings_could_not_be_compared(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "model.pt", tmp_path / "alone.pt")
    options = {**CLASSIFIER, "image_size": 56}  # not that of the training, which nobody knows
    said = pack(str(SKIN), str(tmp_path / "alone.pt"), str(tmp_path / "a_classification"), overrides=options)
    assert "settings of the training: none (no model.json lay beside the model" in said
