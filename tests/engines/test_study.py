"""Arms over seeds through the real bundle: complete, repeatable, and clear about what failed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monai_fair.data import build_manifest, read_predictions, write_manifest
from monai_fair.data.artifacts import read_json
from monai_fair.engines import BundleRun, BundleStudy
from monai_fair.errors import ArtifactError, MonaiFairError
from monai_fair.simulation import simulate_skin

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

BUNDLE = Path(__file__).parents[2] / "bundles" / "fair_image_classification"
TINY: dict[str, Any] = {
    "bundle_root": str(BUNDLE),
    "image_size": 28,
    "max_epochs": 1,
    "progress": False,
    "network_def#block_inplanes": [4, 8, 8, 16],
}
ARMS = {"erm": [], "nir": ["nir.yaml"]}


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    simulate_skin(folder, n=60, seed=0, size=32, num_workers=1)
    write_manifest(build_manifest("ham10000", folder, split=folder / "split.csv"), folder / "manifest.csv")
    return folder


def study(cohort: Path, output: Path, *, arms: Any = ARMS, seeds: Any = (0, 1), **overrides: Any) -> BundleStudy:
    return BundleStudy(
        str(BUNDLE / "configs"),
        arms,
        seeds,
        str(output),
        str(cohort / "manifest.csv"),
        base=["train.yaml", "small.yaml"],
        overrides={**TINY, "dataset_dir": str(cohort), **overrides},
        jobs=2,
    )


@pytest.fixture(scope="module")
def finished(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    output = tmp_path_factory.mktemp("study")
    study(cohort, output).run()
    before = tree(output)
    yield output
    assert tree(output) == before  # nothing a test did with it changed it


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    files = {path: path.stat() for path in folder.rglob("*")}
    return {str(path.relative_to(folder)): (found.st_mtime_ns, found.st_size) for path, found in files.items()}


def test_every_arm_and_seed_is_trained_and_evaluated(finished: Path) -> None:
    for arm in ARMS:
        for seed in (0, 1):
            folder = finished / arm / f"seed_{seed}"
            assert {path.name for path in folder.iterdir()} == {
                "features.safetensors",
                "log.txt",
                "model.json",
                "model.pt",
                "predictions.csv",
                "run.json",
                "training_state.pt",
            }
            assert set(read_predictions(folder / "predictions.csv").table["split"]) == {"val", "test"}
            assert read_json(folder / "run.json", "study_run")["name"] == f"{arm}/seed_{seed}"


def test_arms_and_seeds_give_different_scores(finished: Path) -> None:
    scores = [tuple(read_predictions(path).table["score"]) for path in sorted(finished.rglob("predictions.csv"))]
    assert len(set(scores)) == 4


def test_predictions_name_the_arms_for_the_audit(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "erm" / "seed_7").mkdir(parents=True)  # of an earlier study with other seeds: not compared
    expected = [f"{arm}={tmp_path}/{arm}/seed_{seed}/predictions.csv" for seed in (0, 1) for arm in ARMS]
    assert study(cohort, tmp_path).predictions == expected


def test_a_finished_study_does_nothing_when_it_is_started_again(cohort: Path, finished: Path) -> None:
    before = tree(finished)
    study(cohort, finished).run()
    assert tree(finished) == before


def test_a_study_that_lost_a_run_does_that_one_only(cohort: Path, tmp_path: Path) -> None:
    arms: dict[str, list[str]] = {"erm": []}
    study(cohort, tmp_path, arms=arms, seeds=[0]).run()
    before = tree(tmp_path / "erm" / "seed_0")
    study(cohort, tmp_path, arms=arms, seeds=[0, 1]).run()
    assert tree(tmp_path / "erm" / "seed_0") == before
    assert (tmp_path / "erm" / "seed_1" / "run.json").is_file()


def test_changed_overrides_are_refused(cohort: Path, finished: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        study(cohort, finished, learning_rate=0.5).run()
    assert str(caught.value) == (
        f"{finished}/erm/seed_0: holds a run of other settings, configs or manifest; choose another output_dir"
    )


def test_a_changed_manifest_is_refused(cohort: Path, finished: Path, tmp_path: Path) -> None:
    text = (cohort / "manifest.csv").read_text()
    (tmp_path / "manifest.csv").write_text(text.replace("female", "male", 1))
    changed = study(cohort, finished)
    changed = BundleStudy(
        str(BUNDLE / "configs"), ARMS, [0], str(finished), str(tmp_path / "manifest.csv"),
        base=["train.yaml", "small.yaml"], overrides=changed.overrides, jobs=2,
    )  # fmt: skip
    with pytest.raises(ArtifactError, match="holds a run of other settings, configs or manifest"):
        changed.run()


def test_two_inputs_of_one_name_are_both_bound(cohort: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "manifest.csv", tmp_path / "b" / "manifest.csv"
    for path in (first, second):
        path.parent.mkdir()
        path.write_text("one")
    config = BUNDLE / "configs" / "train.yaml"
    before = BundleRun(tmp_path / "out", [[config]], inputs=[first, second]).key
    for path in (first, second):
        path.write_text("another")
        assert BundleRun(tmp_path / "out", [[config]], inputs=[first, second]).key != before
        path.write_text("one")
    assert BundleRun(tmp_path / "out", [[config]], inputs=[first, second]).key == before


def test_a_failing_run_is_named_and_leaves_the_others_complete(cohort: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("network_def#layers: [1, 1]\n")
    arms = {"broken": [str(broken)], "erm": []}
    with pytest.raises(MonaiFairError) as caught:
        study(cohort, tmp_path / "out", arms=arms, seeds=[0]).run()
    message = str(caught.value)
    assert message.startswith(f"study {tmp_path}/out: broken/seed_0: IndexError: ")
    assert message.endswith(f"; see {tmp_path}/out/broken/seed_0/log.txt")
    assert "Traceback" in (tmp_path / "out" / "broken" / "seed_0" / "log.txt").read_text()
    assert not (tmp_path / "out" / "broken" / "seed_0" / "run.json").exists()
    assert (tmp_path / "out" / "erm" / "seed_0" / "run.json").is_file()


def test_all_missing_files_are_named_at_once(cohort: Path, tmp_path: Path) -> None:
    configs = BUNDLE / "configs"
    with pytest.raises(ArtifactError) as caught:
        study(tmp_path, tmp_path / "out", arms={"a": ["a.yaml"], "b": ["b.yaml", "a.yaml"]})
    assert str(caught.value) == (
        f"study {tmp_path}/out: 3 problems\n"
        f"  1. expected the file {tmp_path}/manifest.csv, found none\n"
        f"  2. expected the file {configs}/a.yaml, found none\n"
        f"  3. expected the file {configs}/b.yaml, found none"
    )
    assert not (tmp_path / "out").exists()


def test_the_study_config_trains_and_audits(cohort: Path, tmp_path: Path) -> None:
    """study.yaml as a user runs it."""
    from monai.bundle import run

    run(
        config_file=str(BUNDLE / "configs" / "study.yaml"),
        bundle_root=str(BUNDLE),
        dataset_dir=str(cohort),
        output_dir=str(tmp_path),
        seeds=[0],
        base=["train.yaml", "small.yaml"],
        overrides={name: value for name, value in TINY.items() if name not in {"bundle_root", "progress"}},
        jobs=2,
        logging_file=False,
    )
    assert "nir" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "metrics.json").is_file()
