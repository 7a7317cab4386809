"""What the section of features holds: probes of every seed and layer, pictures of the first, work that is shared."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_fair.data.artifacts import sha256, write_tensors
from monai_fair.data.predictions import Predictions, read_predictions, write_predictions
from monai_fair.errors import ArtifactError, MonaiFairError
from monai_fair.metrics import attribute_probe
from monai_fair.metrics.label_probes import within_label_probe
from monai_fair.parallel import run_all
from monai_fair.report import feature_section as section
from monai_fair.report import layer_work

ROWS = 240


def write(folder: Path, table: pd.DataFrame, layers: dict[str, Any], name: str = "layers.safetensors") -> Predictions:
    path = write_predictions(folder / "predictions.csv", table)
    write_tensors(folder / name, layers, {"predictions_sha256": sha256(path)})
    return read_predictions(path)


def features_of(table: pd.DataFrame, seed: int = 0, *, told: float = 1.0, columns: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((len(table), columns))
    x[:, 0] += told * (table["sex"] == "male") + 2 * table["label"].astype(int)
    return x.astype(np.float32)


def results_of(runs: dict[str, list[Any]], attributes: tuple[str, ...] = ("sex", "site"), **settings: Any) -> Any:
    """The part of an audit's results that the section looks at."""
    return {
        "settings": {"attributes": attributes, "split": "test", "seed": 0, **settings},
        "runs": [{"name": run, "seeds": [str(i) for i in range(len(own))]} for run, own in runs.items()],
        "notes": [],
    }


def find(rows: list[dict[str, Any]], **what: str) -> dict[str, Any]:
    found = [row for row in rows if all(row[key] == value for key, value in what.items())]
    assert len(found) == 1
    return found[0]


def test_probes_are_those_of_the_metric(tmp_path: Path, simulated: Any) -> None:
    table = simulated(0, ROWS)
    x = features_of(table)
    runs = {"ERM": [write(tmp_path, table, {"embedding": x, "map": features_of(table, 1, told=0.0)})]}
    found = section.feature_section(runs, results_of(runs))["runs"]["ERM"]
    assert found["files"] == ["layers.safetensors"]
    probes = found["probes"]
    assert len(probes) == 2 * 2 * 2
    chosen = np.concatenate([np.flatnonzero(table["split"] == part) for part in ("val", "test")])
    sex, part = table["sex"].iloc[chosen].tolist(), table["split"].iloc[chosen].tolist()
    label = table["label"].astype(int).to_numpy()[chosen]
    probe = attribute_probe(x[chosen], sex, part)
    own = find(probes, layer="embedding", attribute="sex", stratum="all")
    assert own["auc"] == probe.auc
    assert (own["n"], own["n_fitted"]) == (probe.n, probe.n_fitted)
    missing = ((table["sex"] == "") & (table["split"] == "val")).sum()
    assert own["n_missing_fitted"] == missing == 80 - own["n_fitted"]
    within = find(probes, layer="embedding", attribute="sex", stratum="label")
    assert within["auc"] == within_label_probe(x[chosen], sex, label, part).auc
    other = find(probes, layer="map", attribute="sex", stratum="all")
    assert other["auc"] != own["auc"]


def test_nothing_depends_on_the_order_of_rows(tmp_path: Path, simulated: Any) -> None:
    table = simulated(0, ROWS)
    x = features_of(table)
    turned = np.random.default_rng(1).permutation(ROWS)
    found = []
    for name, order in (("a", np.arange(ROWS)), ("b", turned)):
        runs = {"ERM": [write(tmp_path / name, table.iloc[order], {"mu": x[order]})]}
        found.append(section.feature_section(runs, results_of(runs, ("sex",))))
    assert str(found[0]) == str(found[1])


def test_pictures_are_of_the_first_seed_and_cases_of_the_audited_part(tmp_path: Path, simulated: Any) -> None:
    tables = [simulated(seed, ROWS) for seed in (0, 1)]
    runs = {"ERM": [write(tmp_path / str(i), own, {"mu": features_of(own, i)}) for i, own in enumerate(tables)]}
    found = section.feature_section(runs, results_of(runs))
    pictures = found["runs"]["ERM"]["pictures"]
    assert [(own["seed"], own["layer"], own["reason"]) for own in pictures] == [("0", "mu", None)]
    assert {row["seed"] for row in found["runs"]["ERM"]["probes"]} == {"0", "1"}
    cases, test = found["cases"], tables[0][tables[0]["split"] == "test"]
    assert cases["n"] == len(test) == 160
    assert cases["label"] == test["label"].astype(int).tolist()
    assert cases["attributes"]["sex"] == test["sex"].tolist()
    counts = test.groupby(["sex", "site"]).size()
    assert cases["n_joint"] == [counts[key] for key in zip(test["sex"], test["site"], strict=True)]
    assert set(cases["panel"]) == {0, 1, 2, 3}
    for method in ("pca", "tsne"):
        for axis in "xy":
            steps = pictures[0][method][axis]
            assert (len(steps), min(steps), max(steps)) == (160, 0, 1000)


def test_several_images_of_a_subject_are_one_in_a_joint_group(tmp_path: Path, simulated: Any) -> None:
    table = simulated(0, 120, subject_id=[f"s{i // 4}" for i in range(120)], split="test", sex="f", site="north")
    runs = {"ERM": [write(tmp_path, table, {"mu": np.ones((120, 2), np.float32)})]}
    assert set(section.feature_section(runs, results_of(runs))["cases"]["n_joint"]) == {30}


def test_equal_work_is_done_once(tmp_path: Path, simulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arms that differ in their thresholds alone share their features."""
    table = simulated(0, ROWS)
    x, asked = features_of(table), []
    runs = {run: [write(tmp_path / run, table, {"mu": x})] for run in ("a", "b")}

    def count(works: dict[bytes, Any]) -> dict[bytes, Any]:
        asked.append(sorted(work.kind for work in works.values()))
        return layer_work.do_all(works)

    monkeypatch.setattr(section, "do_all", count)
    found = section.feature_section(runs, results_of(runs, ("sex",)))["runs"]
    assert asked == [["label", "picture", "probes"]]
    assert str(found["a"]) == str(found["b"])


def test_many_rows_are_drawn_from(tmp_path: Path, simulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section, "MOST_FITTED", 50)
    monkeypatch.setattr(section, "MOST_PICTURED", 40)
    table = simulated(0, ROWS)
    runs = {"ERM": [write(tmp_path, table, {"mu": features_of(table)})]}
    found = section.feature_section(runs, results_of(runs, ("site",)))
    assert found["most_fitted"] == 50
    probe = find(found["runs"]["ERM"]["probes"], attribute="site", stratum="all")
    assert (probe["n_fitted"], found["cases"]["n"]) == (50, 160)
    picture = found["runs"]["ERM"]["pictures"][0]
    assert len(picture["pca"]["x"]) == len(found["cases"]["label"]) == len(found["cases"]["panel"]) == 40


def test_without_files_there_is_no_section(tmp_path: Path, simulated: Any) -> None:
    runs = {"ERM": [read_predictions(write_predictions(tmp_path / "predictions.csv", simulated(0, 60)))]}
    assert section.feature_section(runs, results_of(runs)) == {}


def test_seeds_without_files_are_noted(tmp_path: Path, simulated: Any) -> None:
    table = simulated(0, ROWS)
    with_file = write(tmp_path / "0", table, {"features": features_of(table)}, "features.safetensors")
    without = read_predictions(write_predictions(tmp_path / "1" / "predictions.csv", table))
    runs = {"ERM": [without, with_file], "NIR": [without]}
    results = results_of(runs, ("sex",))
    found = section.feature_section(runs, results)["runs"]
    assert list(found) == ["ERM"]
    assert (found["ERM"]["seeds"], found["ERM"]["files"]) == (["1"], ["features.safetensors"])
    assert {row["layer"] for row in found["ERM"]["probes"]} == {"features"}
    assert results["notes"] == ["ERM: what features tell is of 1 of 2 seeds, the others have none"]


def test_the_label_alone_is_a_probe_of_several_classes(tmp_path: Path, simulated: Any) -> None:
    """Class 0 is male, class 1 half, class 2 female: the more male class says male, and the AUC counts the pairs of a
    man and a woman that lie in this order, ties half."""
    table = simulated(0, ROWS).drop(columns="score").assign(score_0="0.2", score_1="0.3", score_2="0.5")
    label = np.arange(ROWS) // 3 % 3
    table["label"] = label.astype(str)
    table["sex"] = np.where((label == 0) | ((label == 1) & (np.arange(ROWS) // 9 % 2 == 0)), "m", "f")
    runs = {"ERM": [write(tmp_path, table, {"mu": np.ones((ROWS, 2), np.float32)})]}
    found = section.feature_section(runs, results_of(runs, ("sex",)))["runs"]["ERM"]
    test = table[table["split"] == "test"]
    men, women = (test[test["sex"] == name]["label"].astype(int).to_numpy() for name in "mf")
    order = men[:, None] - women[None]
    assert found["label_alone"][0]["auc"] == pytest.approx(((order < 0) + 0.5 * (order == 0)).mean())
    within = find(found["probes"], stratum="label")
    assert np.isnan(within["auc"])
    assert within["reason"].startswith("class 0: expected two levels with 5 rows in val, got m 2")
    # features that are all the same tell nothing, and make no picture
    assert find(found["probes"], stratum="all")["auc"] == 0.5
    assert [own["reason"] for own in found["pictures"]] == ["most cases have the same features as others"]


def test_an_audit_of_the_fitted_part_has_no_probes(tmp_path: Path, simulated: Any) -> None:
    table = simulated(0, ROWS)
    runs = {"ERM": [write(tmp_path, table, {"mu": features_of(table)})]}
    found = section.feature_section(runs, results_of(runs, split="val"))["runs"]["ERM"]
    for row in [*found["probes"], *found["label_alone"]]:
        assert np.isnan(row["auc"])
        assert row["reason"] == "the audited rows ('val') are those a probe is fitted on"
    assert found["pictures"][0]["reason"] is None


def test_few_cases_make_no_picture(tmp_path: Path, simulated: Any) -> None:
    table = simulated(0, 12)
    runs = {"ERM": [write(tmp_path, table, {"mu": features_of(table)})]}
    picture = section.feature_section(runs, results_of(runs))["runs"]["ERM"]["pictures"][0]
    assert picture == {"seed": "0", "layer": "mu", "reason": "fewer than 10 cases"}


def test_features_of_attributes_alone_make_no_picture(tmp_path: Path, simulated: Any) -> None:
    """They are the same in each joint group, but for the last bits that batches of other sizes leave."""
    table = simulated(0, ROWS)
    codes = pd.factorize(table["sex"] + table["site"])[0]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((codes.max() + 1, 5))[codes] + 1e-7 * rng.standard_normal((ROWS, 5))
    runs = {"ERM": [write(tmp_path, table, {"mu": x.astype(np.float32)})]}
    picture = section.feature_section(runs, results_of(runs))["runs"]["ERM"]["pictures"][0]
    assert picture["reason"] == "most cases have the same features as others"


def test_features_of_other_predictions_are_refused(tmp_path: Path, simulated: Any) -> None:
    table = simulated(0, 60)
    runs = {"ERM": [write(tmp_path, table, {"mu": features_of(table)})]}
    write_predictions(tmp_path / "predictions.csv", simulated(1, 60))
    with pytest.raises(ArtifactError, match=r"layers.safetensors: expected predictions_sha256 .* predict again"):
        section.feature_section(runs, results_of(runs))


def two_workers(given: list[int | None], function: Any, items: Any, *, workers: int | None) -> Any:
    """All cores are as good as two, and take longer to start."""
    given.append(workers)
    return run_all(function, items, workers=2)


def test_processes_give_the_same_and_an_error_names_its_layer(
    tmp_path: Path, simulated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = simulated(0, ROWS)
    runs = {"ERM": [write(tmp_path, table, {"mu": features_of(table), "sigma": features_of(table, 1)})]}
    results = results_of(runs, ("sex",))
    here = section.feature_section(runs, results)
    with monkeypatch.context() as patch:
        patch.setattr(layer_work, "_HERE", 0)
        patch.setattr(layer_work, "run_all", functools.partial(two_workers, given := []))
        assert str(section.feature_section(runs, results)) == str(here)
    assert given == [None]

    def broken(works: dict[bytes, Any]) -> dict[bytes, Any]:
        (tmp_path / "layers.safetensors").unlink()
        return layer_work.do_all(works)

    monkeypatch.setattr(section, "do_all", broken)
    with pytest.raises(MonaiFairError, match=r"layers.safetensors, layer 'mu': ArtifactError: .* expected a readable"):
        section.feature_section(runs, results)
