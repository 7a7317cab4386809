"""Runs that start from others: each training once, in order, resumed, and never from a training of other settings.

The bundle here writes one line a stage, so that what ran, and how often, can be read.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from monai_fair.data.artifacts import read_json
from monai_fair.engines import BundleStudy
from monai_fair.errors import ArtifactError, MonaiFairError

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

# a stage appends its name and value to what the one before has left in the folder, and its name to a list of all; where
# the value is no number it fails
TRAIN = """
imports: [$from pathlib import Path]
value: 0
stage: train
seed: 0
folder: $Path(@output_dir)
known: $@folder / 'chain.txt'
text: "$(@known.read_text() if @known.is_file() else '') + @stage + '(' + str(int(@value)) + ')'"
run:
- $Path(@ran).open('a').write(@stage + '\\n')
- $(@folder / (@stage + '.txt')).write_text(@text)
- $@known.write_text(@text)
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "train.yaml").write_text(TRAIN)
    for name in ("a", "b", "c", "evaluate"):
        (folder / f"{name}.yaml").write_text(f"stage: {name}\n")
    (folder / "external.yaml").write_text("stage: external\nfolder: $Path(@external_output_dir)\n")
    (tmp_path / "manifest.csv").write_text("rows")
    return folder


def study(configs: Path, arms: Any, **options: Any) -> BundleStudy:
    root = configs.parent
    overrides = {"ran": str(root / "ran.txt"), **options.pop("overrides", {})}
    return BundleStudy(
        str(configs), arms, options.pop("seeds", [0]), str(root / "out"), str(root / "manifest.csv"),
        overrides=overrides, jobs=2, **options,
    )  # fmt: skip


def stages(configs: Path) -> Counter[str]:
    """How often each stage ran."""
    path = configs.parent / "ran.txt"
    return Counter(path.read_text().split()) if path.is_file() else Counter()


def chain_of(configs: Path, run: str) -> str:
    return (configs.parent / "out" / run / "chain.txt").read_text()


ARMS = {
    "half": [["a.yaml"], ["b.yaml"]],
    "whole": [["a.yaml"], ["b.yaml"], ["c.yaml"]],
    "again": {"trainings": [["a.yaml"], ["b.yaml"], ["c.yaml"]], "evaluate": [{"value": 7}]},
    "other": [["a.yaml"], ["b.yaml", {"value": 3}], ["c.yaml", {"value": 4}]],
}


def test_each_training_is_done_once_and_what_follows_starts_from_it(configs: Path) -> None:
    study(configs, ARMS, seeds=[0, 1]).run()
    for seed in (0, 1):
        chains = {arm: chain_of(configs, f"{arm}/seed_{seed}") for arm in ARMS}
        assert chains == {
            "half": "a(0)b(0)evaluate(0)",
            "whole": "a(0)b(0)c(0)evaluate(0)",
            "again": "a(0)b(0)c(0)evaluate(7)",
            "other": "a(0)b(3)c(4)evaluate(4)",  # evaluated as the last training was
        }
    assert stages(configs) == {"a": 2, "b": 4, "c": 4, "evaluate": 8}
    # the folder of an arm has what its trainings left
    assert {"a.txt", "b.txt", "c.txt", "evaluate.txt"} <= {
        path.name for path in (configs.parent / "out/whole/seed_0").iterdir()
    }
    before = stages(configs)
    study(configs, ARMS, seeds=[0, 1]).run()
    assert stages(configs) == before


def test_an_arm_that_comes_later_starts_from_what_is_there(configs: Path) -> None:
    study(configs, {"half": ARMS["half"]}).run()
    assert stages(configs) == {"a": 1, "b": 1, "evaluate": 1}
    later = study(configs, {"half": ARMS["half"], "whole": ARMS["whole"]})
    assert later.runs[0].is_finished()
    later.run()
    assert stages(configs) == {"a": 1, "b": 2, "c": 1, "evaluate": 2}  # b was the arm's own as long as it was the last
    assert chain_of(configs, "whole/seed_0") == "a(0)b(0)c(0)evaluate(0)"


def test_what_a_later_stage_has_changed_is_kept_when_it_goes_on(configs: Path) -> None:
    (configs / "c.yaml").write_text("stage: c\nvalue: nothing\n")  # fails
    arms = {"whole": ARMS["whole"]}
    with pytest.raises(MonaiFairError, match="whole/seed_0: ValueError"):
        study(configs, arms).run()
    folder = configs.parent / "out" / "whole" / "seed_0"
    (folder / "chain.txt").write_text("changed ")
    (configs / "c.yaml").write_text("stage: c\n")
    study(configs, arms).run()
    assert chain_of(configs, "whole/seed_0") == "changed c(0)evaluate(0)"
    (shared,) = (configs.parent / "out" / "shared").glob("b-*")
    assert (shared / "seed_0" / "chain.txt").read_text() == "a(0)b(0)"
    assert stages(configs) == {"a": 1, "b": 1, "c": 3, "evaluate": 1}


def test_arms_that_do_not_start_from_a_failure_are_complete(configs: Path) -> None:
    arms = {"alone": ["c.yaml"], "whole": ARMS["whole"], "other": [["a.yaml"], ["b.yaml", {"value": "x"}], []]}
    with pytest.raises(MonaiFairError) as caught:
        study(configs, arms).run()
    assert "ValueError" in str(caught.value)
    assert "shared/b-" in str(caught.value)
    out = configs.parent / "out"
    assert [(out / arm / "seed_0" / "run.json").is_file() for arm in arms] == [True, True, False]


def test_other_settings_are_refused_before_anything_runs(configs: Path) -> None:
    arms = {"half": ARMS["half"], "whole": ARMS["whole"]}
    study(configs, arms).run()
    before = stages(configs)
    with pytest.raises(ArtifactError, match="half/seed_0: holds a run of other settings"):
        study(configs, arms, overrides={"value": 1}).run()
    # the same files, but one training less
    with pytest.raises(ArtifactError, match="whole/seed_0: holds a run of other settings"):
        study(configs, {"whole": [["a.yaml", "b.yaml"], ["c.yaml"]]}).run()
    assert stages(configs) == before


def test_a_folder_is_not_continued_from_another_training(configs: Path) -> None:
    (configs / "c.yaml").write_text("stage: c\nvalue: nothing\n")  # fails, so that the arm has only started
    with pytest.raises(MonaiFairError):
        study(configs, {"whole": ARMS["whole"]}).run()
    before = stages(configs)
    changed = study(configs, {"whole": [["a.yaml"], ["b.yaml", {"value": 3}], ["c.yaml"]]})
    with pytest.raises(ArtifactError) as caught:
        changed.run()
    assert changed.runs[0].after is not None
    assert str(caught.value) == (
        f"{configs.parent}/out/whole/seed_0: was started from another training than {changed.runs[0].after.folder}; "
        "choose another output_dir"
    )
    assert stages(configs) == before


def test_a_key_without_a_value_is_set(configs: Path) -> None:
    """MONAI's ``run`` takes None for a key that was not given, and would keep that of the config."""
    (configs / "a.yaml").write_text('stage: a\nvalue: "$5 if @named is None else 6"\nnamed: name\n')
    study(configs, {"one": ["a.yaml"]}, overrides={"named": None}).run()
    assert chain_of(configs, "one/seed_0") == "a(5)evaluate(5)"


def manifest_with_splits(path: Path) -> None:
    lines = ["subject_id,image,label,split"]
    lines += [f"s{row},{row}.png,{row % 2},{'test' if row < 4 else 'train'}" for row in range(16)]
    path.write_text("\n".join(lines) + "\n")


def test_folds_are_repeats_with_manifests_of_their_own(configs: Path) -> None:
    manifest_with_splits(configs.parent / "manifest.csv")
    arms = {"alone": ["c.yaml"], "half": ARMS["half"]}
    found = study(configs, arms, folds=2, seeds=[5, 6])
    out = configs.parent / "out"
    places = [f"fold_{fold}/seed_{seed}" for fold in range(2) for seed in (5, 6)]
    assert found.predictions == [f"{arm}={out}/{arm}/{place}/predictions.csv" for place in places for arm in arms]
    assert not out.exists()  # nothing is written before it is asked for
    assert [run.name for run in found.runs] == [f"{arm}/{place}" for place in places for arm in arms]
    assert found.manifests == [str(out / "folds" / f"fold_{fold}.csv") for fold in range(2)]
    assert [Path(run.overrides["manifest"]).name for run in found.runs] == ["fold_0.csv"] * 4 + ["fold_1.csv"] * 4
    assert [run.overrides["seed"] for run in found.runs] == [5, 5, 6, 6] * 2
    after = [run.after for run in found.runs if run.after is not None]
    assert [run.name.split("/", 2)[2] for run in after] == places
    assert [run.overrides["manifest"] for run in after] == [run.overrides["manifest"] for run in found.runs[1::2]]
    assert len({run.key for run in [*found.runs, *after]}) == 12


def test_other_data_are_scored_by_every_model_once(configs: Path) -> None:
    root = configs.parent
    (root / "there").mkdir()
    (root / "there" / "manifest.csv").write_text("other rows")
    data = {"there": {"manifest": str(root / "there" / "manifest.csv"), "dataset_dir": str(root / "there")}}
    arms = {"half": ARMS["half"], "alone": ["c.yaml"]}
    study(configs, arms).run()
    for _ in range(2):  # added to a study that is finished, and then there
        found = study(configs, arms, external=data)
        found.run()
    assert stages(configs) == {"a": 1, "b": 1, "c": 1, "evaluate": 2, "external": 2}
    folder = root / "out" / "external_there"
    assert {path.parent.parent.name for path in folder.glob("*/seed_0/external.txt")} == set(arms)
    assert read_json(folder / "half" / "seed_0" / "run.json", "study_run")["name"] == "external_there/half/seed_0"
    told: list[Any] = []

    def audit(predictions: list[str], *, out: Path) -> Path:
        told.append((predictions, out))
        return out / "report.html"

    assert found.audit_external(audit) == [folder / "report.html"]
    assert told == [([f"{arm}={folder}/{arm}/seed_0/predictions.csv" for arm in arms], folder)]
    # other rows under the same name are not taken for the same
    (root / "there" / "manifest.csv").write_text("changed")
    with pytest.raises(ArtifactError, match="external_there/half/seed_0: holds a run of other settings"):
        study(configs, arms, external=data).run()
    with pytest.raises(ArtifactError, match="external 'there': expected 'manifest' and 'dataset_dir'"):
        study(configs, arms, external={"there": "manifest.csv"})
    (root / "there" / "manifest.csv").unlink()
    with pytest.raises(ArtifactError, match=r"expected the file .*there/manifest\.csv, found none"):
        study(configs, arms, external=data)
