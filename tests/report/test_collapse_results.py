"""Statistics of a small study in run folders: each number again from the files, by SciPy, scikit-learn or by hand."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, mannwhitneyu, wilcoxon
from sklearn.metrics import f1_score, roc_auc_score

from monai_fair.data.artifacts import read_json, read_tensors, write_json
from monai_fair.multiplicity import holm
from monai_fair.report.collapse_results import collapse_results

Records = list[dict[str, Any]]
ARMS, CHECKPOINTS = ("clean", "biased"), ("early", "final")
SEX, AGE = "skin: sex", "skin: age_group"


@pytest.fixture(scope="module")
def results(collapse_experiments: Records) -> dict[str, Any]:
    return collapse_results(collapse_experiments)


def chosen(rows: Records, **fields: Any) -> Records:
    return [row for row in rows if all(row[name] == value for name, value in fields.items())]


def the(rows: Records, **fields: Any) -> dict[str, Any]:
    (row,) = chosen(rows, **fields)
    return row


def experiment(experiments: Records, name: str) -> dict[str, Any]:
    return the(experiments, attribute=name.removeprefix("skin: "))


def curves_of(runs: list[str], attribute: str, measure: str, part: str = "train") -> np.ndarray:
    """Values of all samples, a row per run."""
    files = [json.loads((Path(run) / "neural_collapse.json").read_text())["epochs"] for run in runs]
    return np.array([[epoch[part][attribute]["values"][measure]["value"] for epoch in epochs] for epochs in files])


def split_aucs(runs: list[str], attribute: str) -> np.ndarray:
    files = [json.loads((Path(run) / "collapse.json").read_text()) for run in runs]
    return np.array([file["split_test"][attribute]["auc"] for file in files])


def features(run: str) -> np.ndarray:
    return read_tensors(Path(run) / "features.safetensors")[0]["features"].astype(float)


def test_curves_are_means_of_what_the_runs_recorded(collapse_experiments: Records, results: dict[str, Any]) -> None:
    for name, arm, part, measure in [(SEX, "clean", "train", "nc1_pinv"), (AGE, "biased", "test_to_train", "error")]:
        own = experiment(collapse_experiments, name)
        values = curves_of(own["runs"][arm]["final"], own["attribute"], measure, part)
        curve = the(results["curves"], experiment=name, arm=arm, part=part, measure=measure, group="")
        np.testing.assert_allclose(curve["mean"], values.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(curve["sd"], values.std(axis=0, ddof=1), rtol=1e-9)
        assert (curve["epochs"], curve["n"]) == ([1, 2, 3, 4, 5, 6], [3] * 6)
    runs = collapse_experiments[0]["runs"]["biased"]["early"]
    files = [json.loads((Path(run) / "neural_collapse.json").read_text()) for run in runs]
    male = [file["epochs"][2]["train"]["sex"]["groups"][1]["values"]["nc1_normalized"]["value"] for file in files]
    curve = the(results["curves"], experiment=SEX, arm="biased", part="train", measure="nc1_normalized", group="male")
    assert curve["mean"][2] == pytest.approx(np.mean(male))


def test_which_curves_there_are(results: dict[str, Any]) -> None:
    """Around the train means NC2 and NC3 are those of train; what two classes fix is told with its reason."""
    per = {(part, group): {row["measure"] for row in chosen(results["curves"], part=part, group=group)}
           for part in ("train", "test", "test_to_train") for group in ("", "female", "<60")}  # fmt: skip
    nc1 = {"nc1_distance", "nc1_normalized", "nc1_pinv"}
    decisions = {"nc4_disagreement", "nc4_disagreement_without_bias", "error"}
    assert per["test_to_train", ""] == nc1 | decisions
    assert per["train", ""] == per["test", ""]
    assert nc1 | decisions < per["train", ""]
    assert {"nc2_cosine", "nc2_singular_ratio", "nc2_weight_balance", "nc3_direction"} < per["train", ""]
    assert per["train", "female"] == per["test_to_train", "<60"] == nc1
    assert per["test", "female"] == set()
    fixed = {row["measure"]: row for row in results["undefined"]}
    assert set(fixed) == {"nc2_equinorm", "nc2_equiangular", "nc2_etf_error", "nc2_equinorm_weighted"}
    assert per["train", ""].isdisjoint(fixed)
    assert fixed["nc2_equinorm"]["reason"] == "with two classes it is 0 for any features"
    assert fixed["nc2_equinorm"]["n_curves"] == 2 * 2 * 2  # experiments, arms, parts


def test_falls_and_windows(collapse_experiments: Records, results: dict[str, Any]) -> None:
    for name, arm in ((SEX, "clean"), (SEX, "biased"), (AGE, "biased")):
        own = experiment(collapse_experiments, name)
        curves = curves_of(own["runs"][arm]["early"], own["attribute"], "nc1_normalized")
        fall = the(results["falls"], experiment=name, arm=arm, measure="nc1_normalized")
        assert fall["part"] == "train"
        assert fall["max"] == pytest.approx(curves.max(axis=1))
        assert fall["last"] == pytest.approx(curves[:, -1])
        assert fall["ratio"] == pytest.approx(curves.max(axis=1) / curves[:, -1])
        # early stopping kept 2, 3 and 2 in both arms
        place = "mean_first" if arm == "clean" else "mean_later"
        window = the(results["window"], experiment=name, measure="mean_nc1_normalized")
        assert window["until"] == 2
        assert window[place] == pytest.approx(curves[:, :2].mean())
        half = [1 + int((curve <= curve.max() / 2).argmax()) for curve in curves]
        assert the(results["window"], experiment=name, measure="epochs_to_half")[place] == pytest.approx(np.mean(half))
    np.testing.assert_allclose(
        [row["p_holm"] for row in results["window"]], holm([row["p"] for row in results["window"]])
    )
    assert len(results["window"]) == 2 * 3


def test_f1_is_that_of_scikit_learn(collapse_experiments: Records, results: dict[str, Any]) -> None:
    rows = chosen(results["comparisons"], measure="f1")
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        own = experiment(collapse_experiments, row["experiment"])
        found: dict[str, list[float]] = {}
        for arm in ARMS:
            for run in own["runs"][arm][row["checkpoint"]]:
                table = pd.read_csv(Path(run) / "predictions.csv", keep_default_na=False)
                table = table[(table["split"] == "test") & (table[own["attribute"]] == row["group"])]
                found.setdefault(arm, []).append(f1_score(table["label"], table["score_1"] >= 0.5))
        assert (row["group_n"], row["group_n_positive"]) == (len(table), int(table["label"].sum()))
        assert row["mean_later"] - row["mean_first"] == pytest.approx(
            np.mean(found["biased"]) - np.mean(found["clean"])
        )
        assert row["p"] == pytest.approx(mannwhitneyu(found["biased"], found["clean"], method=row["method"]).pvalue)
        assert row["part"] == "test"


def test_nc1_is_compared_on_train_and_test(collapse_experiments: Records, results: dict[str, Any]) -> None:
    rows = [row for row in results["comparisons"] if row["measure"].startswith("nc1_")]
    places = {(row["part"], row["measure"], row["group"]) for row in chosen(rows, experiment=SEX, checkpoint="final")}
    measures = ("nc1_distance", "nc1_normalized")
    assert places == {
        *(("train", measure, "") for measure in measures),
        *product(("test", "test_to_train"), measures, ("", "female", "male")),
    }  # fmt: skip
    # by hand from the features of one experiment: test rows of women around the train means, clean labels of test
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for arm in ARMS:
        for run in collapse_experiments[0]["runs"][arm]["final"]:
            table = pd.read_csv(Path(run) / "predictions.csv", keep_default_na=False)
            h = features(run)
            label, train = table["label"].to_numpy(), (table["split"] == "train").to_numpy()
            means = np.stack([h[train & (label == k)].mean(axis=0) for k in (0, 1)])
            women = ((table["split"] == "test") & (table["sex"] == "female")).to_numpy()
            distance = np.linalg.norm(h[women] - means[label[women]], axis=1).mean()
            found[arm].append(float(distance / np.linalg.norm(means[1] - means[0])))
    row = the(rows, experiment=SEX, checkpoint="final", part="test_to_train", measure="nc1_normalized", group="female")
    assert (row["mean_first"], row["mean_later"]) == pytest.approx((np.mean(found["clean"]), np.mean(found["biased"])))
    assert (row["group_n"], row["group_n_positive"]) == (int(women.sum()), int(label[women].sum()))
    on_train = the(rows, experiment=SEX, checkpoint="final", part="train", measure="nc1_distance")
    clean = pd.read_csv(collapse_experiments[0]["manifest"]).query("split == 'train'")["label"]
    assert (on_train["group_n"], on_train["group_n_positive"]) == (len(clean), int(clean.sum()))


def test_p_is_adjusted_over_all_comparisons_of_a_checkpoint(results: dict[str, Any]) -> None:
    for checkpoint in CHECKPOINTS:
        family = chosen(results["comparisons"], checkpoint=checkpoint)
        assert len(family) == 2 * (2 + 2 + 2 * 2 * 3)
        np.testing.assert_allclose([row["p_holm"] for row in family], holm([row["p"] for row in family]))
        assert {row["p_smallest"] for row in family} == {0.1}


def test_split_test_and_separability(collapse_experiments: Records, results: dict[str, Any]) -> None:
    split = results["split"]
    for point in split["points"]:
        own = experiment(collapse_experiments, point["experiment"])
        runs = own["runs"][point["arm"]][point["checkpoint"]]
        aucs = split_aucs(runs, own["attribute"])
        assert (point["split_mean"], point["split_sd"]) == pytest.approx((np.mean(aucs), np.std(aucs, ddof=1)))
        told = []
        for run in own["attribute_models"]:
            table = pd.read_csv(Path(run) / "predictions.csv").query("split == 'test'")
            told.append(roc_auc_score(table["label"], table["score"]))
        assert (point["separability_mean"], point["separability_sd"]) == pytest.approx(
            (np.mean(told), np.std(told, ddof=1))
        )
        assert (point["n"], point["reason"]) == (3, "")
    assert len(split["points"]) == 8
    for change in split["changes"]:
        own = experiment(collapse_experiments, change["experiment"])
        runs = own["runs"][change["arm"]]
        early, final = (split_aucs(runs[checkpoint], own["attribute"]) for checkpoint in CHECKPOINTS)
        assert change["difference"] == pytest.approx((final - early).mean())
        assert change["p"] == pytest.approx(wilcoxon(final - early, method="exact").pvalue)
    assert [(row["experiment"], row["arm"]) for row in split["changes"]] == [(n, a) for n in (SEX, AGE) for a in ARMS]
    for row in split["agreement"]:
        own_points = chosen(split["points"], arm=row["arm"], checkpoint=row["checkpoint"])
        wanted = kendalltau(*([p[f"{kind}_mean"] for p in own_points] for kind in ("split", "separability")))
        assert (row["tau"], row["n"]) == (pytest.approx(wanted.statistic), 2)


def test_mislabelled_from_the_features(collapse_experiments: Records, results: dict[str, Any]) -> None:
    rows = results["mislabelled"]
    assert [(row["experiment"], row["checkpoint"]) for row in rows] == [(n, c) for n in (SEX, AGE) for c in CHECKPOINTS]
    for row in rows:
        near, far, counts = [], [], []
        for run in experiment(collapse_experiments, row["experiment"])["runs"]["biased"][row["checkpoint"]]:
            labels = pd.read_csv(Path(run) / "labels.csv")
            h = features(run)
            train, label = (labels["split"] == "train").to_numpy(), labels["label"].to_numpy()
            wrong = train & (labels["clean_label"] != labels["label"]).to_numpy()
            means = [h[train & (label == k)].mean(axis=0) for k in (0, 1)]
            near.append(np.linalg.norm(h[wrong] - means[0], axis=1).mean())
            far.append(np.linalg.norm(h[wrong] - means[1], axis=1).mean())
            counts.append(int(wrong.sum()))
        ratios = np.array(near) / np.array(far)
        assert (row["to_label_mean"], row["to_other_mean"]) == pytest.approx((np.mean(near), np.mean(far)))
        assert (row["ratio_mean"], row["ratio_sd"]) == pytest.approx((ratios.mean(), ratios.std(ddof=1)))
        assert (row["n_seeds"], row["n_samples"], row["reason"]) == (3, counts, "")


def test_configurations(collapse_experiments: Records, results: dict[str, Any]) -> None:
    rows = results["configurations"]
    assert len(rows) == 2 * 2 * 2 * 2 * 2  # experiments, arms, checkpoints, parts, classes
    row = the(rows, experiment=AGE, arm="clean", checkpoint="early", part="test", label=1)
    runs = collapse_experiments[1]["runs"]["clean"]["early"]
    values = []
    for run in runs:
        table = pd.read_csv(Path(run) / "predictions.csv", keep_default_na=False)
        h = features(run)
        test, label = (table["split"] == "test").to_numpy(), table["label"].to_numpy()
        young, old = (h[test & (label == 1) & (table["age_group"] == name)].mean(axis=0) for name in ("<60", ">=60"))
        means = [h[test & (label == k)].mean(axis=0) for k in (0, 1)]
        values.append(np.linalg.norm(young - old) / np.linalg.norm(means[1] - means[0]))
    assert row["groups"] == ["<60", ">=60"]
    assert (row["mean"], row["sd"], row["n"]) == pytest.approx((np.mean(values), np.std(values, ddof=1), 3))


def test_experiments_and_settings(results: dict[str, Any]) -> None:
    assert results["settings"] == {"confidence": 0.95, "threshold": 0.5, "alternative": "two-sided"}
    assert results["experiments"][0] == {
        "name": SEX, "dataset": "skin", "attribute": "sex", "group": "female", "n_seeds": 3,
        "groups": ["female", "male"],
        "early_epochs": {"clean": [2, 3, 2], "biased": [2, 3, 2]},
        "last_epoch": {"clean": [6, 6, 6], "biased": [6, 6, 6]},
    }  # fmt: skip
    assert [own["groups"] for own in results["experiments"]] == [["female", "male"], ["<60", ">=60"]]


def test_the_toy(results: dict[str, Any]) -> None:
    toy = results["toy"]
    assert (toy["n"], toy["final"]["error"]) == (300, 0)
    assert set(toy["early"]) == {"epoch", "points", "label", "clean_label", "in_group", "means", "error"}
    assert len(toy["early"]["points"]) == len(toy["final"]["label"]) == 300


def test_results_are_plain_values(results: dict[str, Any], tmp_path: Path) -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(type(key) is str and plain(item) for key, item in value.items())
        return all(map(plain, value)) if isinstance(value, list) else type(value) in (str, int, float, bool)

    assert plain(results)
    stored = read_json(write_json(tmp_path / "results.json", "neural_collapse_study", results), "neural_collapse_study")
    assert stored["comparisons"][0]["p"] == results["comparisons"][0]["p"]


def test_nothing_is_undefined_without_a_reason(results: dict[str, Any]) -> None:
    for rows in (results["comparisons"], results["window"], results["split"]["changes"]):
        for row in rows:
            assert np.isnan(row["difference"]) == bool(row["reason"])
            assert np.isnan(row["low"]) == bool(row["interval_reason"])
