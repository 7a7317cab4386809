"""The study of neural collapse: which runs it has, what the page is told, and what is refused before training."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_fair.engines import CollapseStudies
from monai_fair.errors import ArtifactError, MonaiFairError

TRAININGS: dict[str, Any] = {"clean": ["nc.yaml"], "biased": ["nc.yaml", "bias.yaml"], "group": ["group.yaml"]}
CHECKPOINTS: dict[str, Any] = {"early": ["measure.yaml"], "final": ["measure.yaml", "last.yaml"]}


class Recorder:
    """Stands in for a study: keeps what it was told."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.output_dir, self.manifest, self.seeds = Path(options["output_dir"]), Path(options["manifest"]), (3, 4)
        self.ran = False

    @property
    def predictions(self) -> list[str]:
        return [f"{arm}={self.output_dir}/{arm}/seed_3/predictions.csv" for arm in self.options["arms"]]

    def run(self) -> None:
        self.ran = True


def made(datasets: Any, **options: Any) -> CollapseStudies:
    given: dict[str, Any] = {"overrides": {"a": 1}, "trainings": TRAININGS, "checkpoints": CHECKPOINTS, **options}
    return CollapseStudies(datasets, Recorder, "out", **given)  # type: ignore[arg-type]


def dataset(manifest: Any = "m.csv", **groups: Any) -> dict[str, Any]:
    return {"manifest": str(manifest), "dataset_dir": "data", "groups": groups or {"sex": "female"}}


def test_clean_runs_are_shared_and_each_attribute_has_biased_ones_and_a_model_of_its_own() -> None:
    own = {**dataset(sex="female", age_group="<60"), "overlays": [{"batch_size": 32}]}
    told = made({"skin": own}, overlays=["sgd.yaml"]).studies["skin"].options  # type: ignore[attr-defined]
    measured = {"collapse_attributes": ["sex", "age_group"]}
    common = ["sgd.yaml", {"batch_size": 32}]

    def biased(attribute: str, value: str) -> list[Any]:
        return [["nc.yaml", "bias.yaml", *common, {**measured, "bias_group": {attribute: value}}]]

    clean = [["nc.yaml", *common, measured]]
    assert told["arms"] == {
        "clean_early": {"trainings": clean, "evaluate": ["measure.yaml"]},
        "clean_final": {"trainings": clean, "evaluate": ["measure.yaml", "last.yaml"]},
        "biased_sex_early": {"trainings": biased("sex", "female"), "evaluate": ["measure.yaml"]},
        "biased_sex_final": {"trainings": biased("sex", "female"), "evaluate": ["measure.yaml", "last.yaml"]},
        "biased_age_group_early": {"trainings": biased("age_group", "<60"), "evaluate": ["measure.yaml"]},
        "biased_age_group_final": {"trainings": biased("age_group", "<60"), "evaluate": ["measure.yaml", "last.yaml"]},
        "group_sex": {"trainings": [["group.yaml", *common, {"learned_group": {"sex": "female"}}]]},
        "group_age_group": {"trainings": [["group.yaml", *common, {"learned_group": {"age_group": "<60"}}]]},
    }
    assert told["overrides"] == {"a": 1, "dataset_dir": "data"}
    assert (told["manifest"], told["output_dir"]) == ("m.csv", "out/skin")


def test_the_page_is_told_the_folders_of_every_experiment() -> None:
    found = made({"skin": dataset(sex="female", site=2), "eyes": dataset("e.csv", age="old")}).experiments
    assert [(one["dataset"], one["attribute"], one["group"], one["manifest"]) for one in found] == [
        ("skin", "sex", "female", "m.csv"), ("skin", "site", "2", "m.csv"), ("eyes", "age", "old", "e.csv"),
    ]  # fmt: skip
    assert found[1]["seeds"] == [3, 4]
    assert found[1]["runs"] == {
        arm: {
            checkpoint: [f"out/skin/{folder}_{checkpoint}/seed_{seed}" for seed in (3, 4)]
            for checkpoint in ("early", "final")
        }
        for arm, folder in (("clean", "clean"), ("biased", "biased_site"))
    }
    assert found[1]["attribute_models"] == [f"out/skin/group_site/seed_{seed}" for seed in (3, 4)]


def test_the_audit_compares_the_models_of_the_disease_alone() -> None:
    told = []

    def audit(**options: Any) -> Path:
        told.append(options)
        return Path(options["out"]) / "report.html"

    assert made({"skin": dataset()}).audit(audit) == {"skin: sex": Path("out/skin/report.html")}
    (options,) = told
    assert [path.partition("=")[0] for path in options["predictions"]] == [
        "clean_early", "clean_final", "biased_sex_early", "biased_sex_final",
    ]  # fmt: skip
    assert options["attributes"] == ["sex"]


def test_every_problem_of_the_datasets_is_named() -> None:
    datasets = {
        "a b": dataset(),
        "b": {"manifest": "m.csv", "groups": {"sex": "female"}},
        "c": {**dataset(), "group": {}},
        "d": {**dataset(), "groups": ["sex"]},
        "e": dataset(**{"age group": "<60"}),
    }
    with pytest.raises(ArtifactError) as caught:
        made(datasets, trainings={"clean": []}, checkpoints={"early": [], "late": []})
    name = "expected a name of letters, digits, '_', '.' or '-', from a letter on; give it such a one"
    needed = "expected dataset_dir, groups, manifest and perhaps overlays, got"
    assert str(caught.value).splitlines() == [
        "study out: 7 problems",
        f"  1. dataset 'a b': {name}",
        f"  2. dataset 'b': {needed} {datasets['b']}",
        f"  3. dataset 'c': {needed} {datasets['c']}",
        "  4. dataset 'd': expected groups as attribute to value, such as {sex: female}, got ['sex']; name one",
        f"  5. dataset 'e': attribute 'age group': {name}",
        "  6. trainings: expected biased, clean, group, got clean; correct them",
        "  7. checkpoints: expected early, final, got early, late; correct them",
    ]
    with pytest.raises(ArtifactError, match="at least one dataset, got none"):
        made({})


def manifest(folder: Path, rows: list[tuple[str, int, str, str]]) -> Path:
    """Rows of split, label, sex and race."""
    table = pd.DataFrame(rows, columns=["split", "label", "sex", "race"])
    table.insert(0, "subject_id", [f"S{number}" for number in range(len(table))])
    table.insert(1, "image", [f"{number}.png" for number in range(len(table))])
    table.to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


WHOLE = [
    (split, label, sex, race)
    for split in ("train", "val", "test")
    for label in (0, 1)
    for sex, race in (("female", "A"), ("male", "B"))
]


def test_data_that_hold_all_that_is_needed_pass(tmp_path: Path) -> None:
    own = {**dataset(manifest(tmp_path, WHOLE), sex="female", race="B"), "dataset_dir": str(tmp_path)}
    made({"skin": own}).check()


def test_data_that_no_run_could_finish_with_are_refused_at_once(tmp_path: Path) -> None:
    rows = [row for row in WHOLE if not (row[3] == "B" and row[0] == "test")]
    rows = [(split, 0 if sex == "male" else label, sex, race) for split, label, sex, race in rows]
    path = manifest(tmp_path, rows)
    groups = {"sex": "male", "race": "A", "site": "x"}
    own = {**dataset(path, **groups), "dataset_dir": str(tmp_path)}
    with pytest.raises(MonaiFairError) as caught:
        made({"skin": own, "again": own}).check()
    text = str(caught.value)
    assert text.count("expected rows of sex=male with label 1 in train or val, got none") == 2
    one_sided = "test: expected rows in and outside of race=A, got 2 in, 0 outside and 0 without its attributes"
    assert text.count(one_sided) == 2
    assert text.count("site: expected a recorded attribute (sex, race)") == 2
    assert text.startswith("skin: ")
    with pytest.raises(MonaiFairError) as caught:
        made({"skin": own}, overrides={"bias_rate": 2, "bias_method": "some"}).check()
    for problem in ("rate: expected a share from 0 to 1, got 2", "method: expected one of exact, bernoulli, got"):
        assert str(caught.value).count(problem) == 1


def test_what_one_study_says_stops_no_other(tmp_path: Path) -> None:
    found = made({"one": dataset(), "two": dataset()})
    broken, whole = found.studies.values()

    def fail() -> None:
        raise MonaiFairError("no")

    broken.run = fail  # type: ignore[method-assign]
    with pytest.raises(MonaiFairError, match=r"^one: no$"):
        found.run()
    assert whole.ran  # type: ignore[attr-defined]
