"""FairREAD's studies of several findings: what each of them trains, and all of it in one command."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from monai.bundle import ConfigParser, run

from monai_fair.data.artifacts import read_json
from monai_fair.engines.finding_studies import FindingStudies
from monai_fair.errors import root_cause

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

STAGE_1 = [["stage1_attributes.yaml"], ["stage1_encoder.yaml"]]
PUBLISHED = {
    "Cardiomegaly": "cardiomegaly.yaml",
    "Pleural_Effusion": "pleural_effusion.yaml",
    "Pneumonia": "pneumonia.yaml",
    "Fracture": "fracture.yaml",
}


def trained(study: Any) -> dict[str, list[list[Any]]]:
    """Arm to the overlays of its trainings, keys in place of a file as they are, in the first repeat."""
    found = {}
    for made in study.runs[: len(study.plan.arms)]:
        stages = [[Path(path) for path in stage[1:]] for stage in made.chain[:-1]]
        found[made.name.split("/")[0]] = [
            [yaml.safe_load(path.read_text()) if path.parent.name == "overlays" else path.name for path in stage]
            for stage in stages
        ]
    return found


@pytest.fixture
def manifests(cohort: Path, tmp_path: Path) -> dict[str, str]:
    """A manifest for each finding: labels of the cohort, the last ones turned round."""
    table = pd.read_csv(cohort / "manifest.csv", dtype=str, keep_default_na=False)
    found = {}
    for number, name in enumerate(PUBLISHED):
        own = table.copy()
        turned = own.index % 7 == number
        own.loc[turned, "label"] = own.loc[turned, "label"].map({"0": "1", "1": "0"})
        found[name] = str(tmp_path / f"{name}.csv")
        own.to_csv(found[name], index=False)
    return found


def studies(fairread: Any, folder: Path, manifests: dict[str, str], *overlays: str, **options: Any) -> FindingStudies:
    findings = {name: {"manifest": path, "overlays": [PUBLISHED[name]]} for name, path in manifests.items()}
    names = ("study", *overlays, "findings")
    options = {"findings": findings, "initialize": False, "tiny_network": False, **options}
    workflow = fairread.workflow(*names, output=folder, **options)
    built = workflow.parser.get_parsed_content("studies")
    assert isinstance(built, FindingStudies)
    return built


def test_the_published_findings_have_their_manifests_and_overlays(fairread: Any) -> None:
    parser = ConfigParser()
    parser.read_config(fairread.files("study", "protocol", "findings"))
    parser["dataset_dir"] = "there"
    assert parser.get_parsed_content("findings") == {
        name: {"manifest": f"there/{overlay.removesuffix('.yaml')}.csv", "overlays": [overlay]}
        for name, overlay in PUBLISHED.items()
    }


def test_only_stage_2_has_the_settings_of_the_finding(fairread: Any, tmp_path: Path, manifests: dict[str, str]) -> None:
    found = studies(fairread, tmp_path / "out", manifests, "protocol").studies
    assert list(found) == list(PUBLISHED)
    for name, study in found.items():
        assert trained(study) == {
            "erm": [["erm.yaml"]],
            "adversary": [["adversary.yaml"]],
            "orthogonality": STAGE_1,
            "fairread": [*STAGE_1, [PUBLISHED[name]]],
        }
        assert study.output_dir == tmp_path / "out" / name
        assert [each.name for each in study.runs[::4]] == [f"erm/fold_{fold}/seed_0" for fold in range(5)]
        last = study.runs[3].chain[-1]  # of FairREAD: scored with the settings it was trained with
        assert Path(last[1]).name == PUBLISHED[name]
        assert {"evaluate.yaml", "published_thresholds.yaml"} <= {Path(path).name for path in last[2:]}


@pytest.mark.parametrize(("overlay", "value"), [("sweep", {"adversary_strength": 0.2}), ("ablation", None)])
def test_other_studies_of_findings_keep_what_they_change(
    fairread: Any, tmp_path: Path, manifests: dict[str, str], overlay: str, value: Any
) -> None:
    study = studies(fairread, tmp_path / "out", manifests, overlay, seeds=[0]).studies["Fracture"]
    found = trained(study)
    if overlay == "sweep":
        assert found["fairread_0.2"] == [*STAGE_1, ["fracture.yaml", value]]
    else:
        assert found["no_column_loss"][2] == found["one_threshold"][2] == ["fracture.yaml"]
        assert found["no_adversary"][2] == ["fracture.yaml", {"adversary_strength": 0}]
        assert found["no_refusion"] == STAGE_1


def test_every_component_builds(fairread: Any, tmp_path: Path, manifests: dict[str, str]) -> None:
    findings = {name: {"manifest": path, "overlays": [PUBLISHED[name]]} for name, path in manifests.items()}
    options = {"findings": findings, "initialize": False, "tiny_network": False}
    workflow = fairread.workflow("study", "protocol", "findings", output=tmp_path / "out", **options)
    built = fairread.build_all(workflow)
    assert isinstance(built["studies"], FindingStudies)
    assert all(callable(built[name]) for name in ("training", "audit", "external_audit", "averages", "attribute_check"))


def test_other_data_of_all_findings_are_refused(fairread: Any, tmp_path: Path, manifests: dict[str, str]) -> None:
    external = {"mimic": {"manifest": "m.csv", "dataset_dir": "m"}}
    with pytest.raises(RuntimeError) as caught:
        studies(fairread, tmp_path / "out", manifests, external=external)
    assert root_cause(caught.value) == (
        f"ArtifactError: findings {tmp_path}/out: expected other data in each finding, got mimic for all; "
        "move them there"
    )


def run_findings(fairread: Any, folder: Path, findings: Any) -> None:
    """Do what ``python -m monai.bundle run`` does, on small images and with few resamples."""
    tiny = {key: value for key, value in fairread.tiny.items() if key not in ("attributes", "missing_attributes")}
    network = {"init_features": 8, "growth_rate": 4, "block_config": [1, 1]}
    few = {"resamples": 100, "permutations": 100, "min_count": 1}
    run(
        config_file=fairread.files("study", "protocol", "findings"),
        bundle_root=str(fairread.root),
        dataset_dir=str(fairread.cohort),
        output_dir=str(folder),
        base=["train.yaml", "small.yaml"],
        attributes=fairread.tiny["attributes"],
        missing_attributes=True,
        overrides={**tiny, "latent": 8, **{f"backbone_def#{key}": value for key, value in network.items()}},
        arms={"erm": ["erm.yaml"], "fairread": "@fairread"},
        folds=2,
        jobs=1,
        findings=findings,
        logging_file=False,
        **{f"audit#{key}": value for key, value in {**few, "embeddings": False}.items()},
        **{f"external_audit#{key}": value for key, value in few.items()},
    )


@pytest.mark.slow
def test_one_command_runs_two_findings_and_again_does_nothing(
    fairread: Any, cohort: Path, manifests: dict[str, str], state_of: Any, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.csv"
    other = pd.read_csv(cohort / "manifest.csv", dtype=str, keep_default_na=False)
    other = other.drop(columns="sha256", errors="ignore").assign(subject_id="other_" + other["subject_id"])
    other.to_csv(elsewhere, index=False)
    data = {"there": {"manifest": str(elsewhere), "dataset_dir": str(cohort)}}
    findings: dict[str, Any] = {
        name: {"manifest": manifests[name], "overlays": [PUBLISHED[name]]} for name in ("Fracture", "Pneumonia")
    }
    findings["Fracture"]["external"] = data
    out = tmp_path / "out"
    run_findings(fairread, out, findings)
    runs = [f"{name}/{arm}/fold_{fold}/seed_0" for name in findings for arm in ("erm", "fairread") for fold in range(2)]
    stamps = {path: path.stat().st_mtime_ns for run in runs for path in (out / run).iterdir()}
    assert all((out / run / "predictions.csv").is_file() for run in runs)
    table = pd.read_csv(out / "findings.csv")
    assert [f"{row.finding}/{row.arm}/{row.repeat}" for row in table.itertuples()] == runs
    results = {name: read_json(out / name / "metrics.json", "audit") for name in findings}
    for (name, arm), own in table.groupby(["finding", "arm"]):
        recorded = results[name]["targets"][0]["overall"]["cells"][arm]["auc"]["by_seed"]
        assert own["auc"].tolist() == pytest.approx([each["value"] for each in recorded])
    assert json.loads((out / "findings.json").read_text())["rule"] == "given"
    assert 'href="Fracture/report.html"' in (out / "findings.html").read_text()
    there = pd.read_csv(out / "external_there" / "findings.csv")
    assert set(there["finding"]) == {"Fracture"}
    assert set(there["n"]) == {60}
    # fracture.yaml has one block, pneumonia.yaml two
    sizes = {name: len(state_of(out / name / "fairread" / "fold_0" / "seed_0")) for name in findings}
    assert sizes["Fracture"] < sizes["Pneumonia"]

    run_findings(fairread, out, findings)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
