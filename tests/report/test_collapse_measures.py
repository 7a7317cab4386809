"""write_collapse_measures and read_last_layer: what neural_collapse and split_test say of the arrays, and refusals."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax

from monai_fair.data import write_predictions
from monai_fair.data.artifacts import read_json, sha256, write_tensors
from monai_fair.data.predictions import read_predictions
from monai_fair.errors import ArtifactError, ManifestError, PredictionsError
from monai_fair.metrics import neural_collapse, split_test
from monai_fair.report import write_collapse_measures
from monai_fair.report.last_layer import positive_probability, read_last_layer

N = 180
ATTRIBUTES = ["sex", "site"]
LAYERS = {
    1: (np.array([[1.5, -0.5, 0.25, 0.0]], np.float32), np.array([-1.0], np.float32)),
    2: (np.array([[-1.0, 0.25, 0.0, 0.5], [1.0, 0.0, -0.25, 0.0]], np.float32), np.array([0.5, -0.5], np.float32)),
}


@dataclass
class Run:
    """A model's files in a folder, and the arrays they are made of."""

    folder: Path
    logits: int = 2
    features: np.ndarray = field(init=False)
    table: pd.DataFrame = field(init=False)
    clean: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(3)
        self.clean = (rng.random(N) < 0.5).astype(int)
        split = np.repeat(["train", "val", "test"], N // 3)
        missed = (self.clean == 1) & (split != "test") & (rng.random(N) < 0.3)
        label = np.where(missed, 0, self.clean)
        sex, site = rng.choice(["f", "m", ""], N, p=[0.45, 0.45, 0.1]), rng.choice(["a", "b", "c"], N)
        self.features = rng.normal(size=(N, 4)).astype(np.float32)
        self.features[:, 0] += 2 * label
        self.features[:, 1] += sex == "m"
        names = {"subject_id": [f"s{row // 2}" for row in range(N)], "image": [f"{row}.png" for row in range(N)]}
        self.table = pd.DataFrame({**names, "split": split, "label": label, "sex": sex, "site": site})

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions.csv"

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.csv"

    def rows(self, part: str) -> np.ndarray:
        return (self.table["split"] == part).to_numpy()

    def write(self, *, clean: bool = True, seed: int | None = None) -> "Run":
        """Write all files; the manifest's rows in the order of the table, or in a random one."""
        weight, bias = LAYERS[self.logits]
        logits = self.features @ weight.T + bias
        score = expit(logits[:, 0]) if self.logits == 1 else softmax(logits, axis=1)[:, 1]
        scores = {"score": score} if self.logits == 1 else {"score_0": 1 - score, "score_1": score}
        write_predictions(self.predictions, self.table.assign(**scores))
        self.write_layer()
        manifest = self.table.assign(clean_label=self.clean) if clean else self.table
        order = np.arange(N) if seed is None else np.random.default_rng(seed).permutation(N)
        manifest.iloc[order].to_csv(self.manifest, index=False)
        return self

    def write_layer(self, metadata: dict[str, str] | None = None, **changes: Any) -> None:
        weight, bias = LAYERS[self.logits]
        tensors = {"features": self.features, "weight": weight, "bias": bias, **changes}
        known = {"predictions_sha256": sha256(self.predictions)} if metadata is None else metadata
        kept = {name: value for name, value in tensors.items() if value is not None}
        write_tensors(self.folder / "features.safetensors", kept, known)

    def measure(self, attributes: Any = ATTRIBUTES, **files: Path) -> dict[str, Any]:
        given = {"predictions": self.predictions, "manifest": self.manifest, **files}
        out = write_collapse_measures(**given, attributes=attributes, out=self.folder / "collapse.json")
        return read_json(out, "collapse")

    def refusal(self, attributes: Any = ATTRIBUTES, error: type[ValueError] = ArtifactError, **files: Path) -> str:
        with pytest.raises(error) as caught:
            self.measure(attributes, **files)
        assert not (self.folder / "collapse.json").exists()
        return str(caught.value)


def stored(content: Any) -> Any:
    """Return what JSON makes of it: no NaN, no tuples."""
    if isinstance(content, dict):
        return {key: stored(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [stored(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def expected(run: Run, attribute: str, *, clean: bool = True) -> dict[str, Any]:
    """What neural_collapse says of the arrays, row by row in the order of the table."""
    weight, bias = LAYERS[run.logits]
    label, wrong = run.table["label"].to_numpy(), run.table["label"].to_numpy() != run.clean
    found: dict[str, Any] = {}
    for kind, part in (("train", "train"), ("test", "test"), ("test_to_train", "test")):
        inside = run.rows(part)
        found[kind] = neural_collapse(
            run.features[inside],
            label[inside],
            weight=weight,
            bias=bias,
            groups=run.table.loc[inside, attribute].tolist(),
            mislabelled=wrong[inside] if clean else None,
            means=found["train"].means if kind == "test_to_train" else None,
        )
    return {kind: stored(own.record()) for kind, own in found.items()}


@pytest.mark.parametrize("logits", [1, 2])
@pytest.mark.parametrize("clean", [True, False], ids=["clean labels", "no clean labels"])
def test_measures_are_those_of_the_arrays(tmp_path: Path, logits: int, clean: bool) -> None:
    run = Run(tmp_path, logits).write(clean=clean)
    content = run.measure()
    assert content["collapse"] == {name: expected(run, name, clean=clean) for name in ATTRIBUTES}
    splits = {
        name: split_test(
            run.features.astype(float),
            run.table[name].tolist(),
            run.table["split"].tolist(),
            subject=run.table["subject_id"].tolist(),
        )
        for name in ATTRIBUTES
    }
    assert content["split_test"] == {name: stored(asdict(found)) for name, found in splits.items()}
    assert content["predictions_sha256"] == sha256(run.predictions)
    assert content["manifest_sha256"] == sha256(run.manifest)


def test_the_parts_are_three_different_things(tmp_path: Path) -> None:
    """Else a mistake in both this file and the module would not show."""
    parts = Run(tmp_path).write().measure(["sex"])["collapse"]["sex"]
    assert list(parts) == ["train", "test", "test_to_train"]
    assert len({part["values"]["nc1_normalized"]["value"] for part in parts.values()}) == 3
    assert [part["n"] for part in parts.values()] == [60, 60, 60]
    around = {name: part["n_of_means_by_class"] for name, part in parts.items()}
    assert around["test_to_train"] == around["train"] != around["test"]
    assert all(part["one_logit"] is False for part in parts.values())


def test_val_counts_in_the_split_test_only(tmp_path: Path) -> None:
    run = Run(tmp_path).write()
    before = run.measure(["sex"])
    inside = run.rows("val")
    run.features[inside] = -run.features[inside]
    after = run.write().measure(["sex"])
    assert before["collapse"] == after["collapse"]
    assert before["split_test"]["sex"]["val_auc"] != after["split_test"]["sex"]["val_auc"]


def test_mislabelled_rows_are_found_whatever_the_order_of_the_manifest(tmp_path: Path) -> None:
    run = Run(tmp_path).write()
    content = run.measure()
    train = run.rows("train")
    wrong = int((run.clean[train] != run.table.loc[train, "label"]).sum())
    assert 0 < wrong < train.sum()
    assert content["collapse"]["sex"]["train"]["values"]["mislabelled_to_label"]["n"] == wrong
    for seed in range(3):
        shuffled = run.write(seed=seed).measure()
        assert shuffled["collapse"] == content["collapse"]
        assert shuffled["manifest_sha256"] != content["manifest_sha256"]


def test_a_manifest_may_have_more_rows_than_were_predicted(tmp_path: Path) -> None:
    run = Run(tmp_path).write()
    content = run.measure()
    table = pd.read_csv(run.manifest, dtype=str, keep_default_na=False)
    more = table.iloc[:1].assign(subject_id="other", image="other.png", label="0", clean_label="1")
    pd.concat([more, table]).to_csv(run.manifest, index=False)
    assert run.measure()["collapse"] == content["collapse"]


def test_without_clean_labels_the_mislabelled_have_a_reason(tmp_path: Path) -> None:
    values = Run(tmp_path).write(clean=False).measure(["sex"])["collapse"]["sex"]["train"]["values"]
    assert values["mislabelled_to_label"] == {
        "value": None, "n": 0, "reason": "it is not given which samples are mislabelled"
    }  # fmt: skip


def test_test_rows_are_never_mislabelled(tmp_path: Path) -> None:
    parts = Run(tmp_path).write().measure(["sex"])["collapse"]["sex"]
    for name in ("test", "test_to_train"):
        assert parts[name]["values"]["mislabelled_ratio"]["reason"] == "no sample is mislabelled"


def test_missing_values_are_no_group(tmp_path: Path) -> None:
    run = Run(tmp_path).write()
    content = run.measure()
    for part in ("train", "test"):
        found = content["collapse"]["sex"][part]
        values = run.table.loc[run.rows(part), "sex"]
        assert [group["name"] for group in found["groups"]] == ["f", "m"]
        assert [group["n"] for group in found["groups"]] == [(values == "f").sum(), (values == "m").sum()]
        assert found["n_without_group"] == (values == "").sum() > 0
    split = content["split_test"]["sex"]
    counts = [(run.table.loc[run.rows(part), "sex"] != "").sum() for part in ("train", "val", "test")]
    assert [split["n_train"], split["n_val"], split["n"]] == counts


def test_an_attribute_of_one_value_leaves_a_reason(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.table["sex"] = "f"
    found = run.write().measure(["sex"])["split_test"]["sex"]
    assert (found["auc"], found["reason"]) == (None, "expected two levels with 5 rows in train, got f 60")


def test_a_second_call_gives_the_same_bytes(tmp_path: Path) -> None:
    run = Run(tmp_path).write()
    out = [
        write_collapse_measures(str(run.predictions), str(run.manifest), ATTRIBUTES, out=tmp_path / "new" / f"{i}.json")
        for i in range(2)
    ]
    assert out[0].read_bytes() == out[1].read_bytes()
    assert "NaN" not in out[0].read_text()
    assert json.loads(out[0].read_text())["kind"] == "collapse"


def test_parts_and_attributes_that_are_not_there_are_refused_together(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.table["split"] = run.table["split"].replace({"train": "test", "val": "test"})
    advice = "evaluate with --evaluate_splits \"['train', 'val', 'test']\""
    assert run.write(clean=False).refusal(["sex", "race"]) == (
        f"{run.predictions}: 3 problems\n"
        f"  1. expected rows with split 'train', found test; {advice}\n"
        f"  2. expected rows with split 'val', found test; {advice}\n"
        "  3. expected a recorded attribute (sex, site), got 'race'; correct the name"
    )


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ([], "attributes: expected at least one (sex, site), got none; name one"),
        ("sex", "attributes: expected a list such as ['sex'], got 'sex'"),
        (["label"], "expected a recorded attribute (sex, site), got 'label'; correct the name"),
    ],
)
def test_other_attributes_are_refused(tmp_path: Path, attributes: Any, message: str) -> None:
    run = Run(tmp_path).write()
    assert run.refusal(attributes) == f"{run.predictions}: {message}"


def test_several_classes_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path).write()
    write_predictions(run.predictions, run.table.assign(score_0=0.5, score_1=0.25, score_2=0.25))
    assert run.refusal() == f"{run.predictions}: expected two classes, got 3; leave the measures out"


def test_a_manifest_without_the_rows_is_refused(tmp_path: Path) -> None:
    for clean in (True, False):
        run = Run(tmp_path).write(clean=clean)
        run.table.assign(image=[f"{row + 2}.png" for row in range(N)]).to_csv(run.manifest, index=False)
        # an image's subject counts too: image 2 is of s1 in the table, and of s0 in the manifest
        assert run.refusal() == (
            f"{run.manifest}: expected the rows of {run.predictions}, {N} of {N} are not there; "
            "give the manifest that was evaluated"
        )
    run.write().table.iloc[1:].to_csv(run.manifest, index=False)
    assert f"1 of {N} are not there" in run.refusal()


def test_a_manifest_of_other_labels_is_refused(tmp_path: Path) -> None:
    """Without its clean labels the true manifest of a model that learned biased ones would say that no row is wrong."""
    run = Run(tmp_path).write()
    run.table.assign(label=run.clean).iloc[1:].to_csv(run.manifest, index=False)
    wrong = int((run.table["label"] != run.clean)[1:].sum())
    assert run.refusal() == (
        f"{run.manifest}: 2 problems\n"
        f"  1. expected the rows of {run.predictions}, 1 of {N} are not there; give the manifest that was evaluated\n"
        f"  2. expected the labels of {run.predictions}, {wrong} of {N} are not there; "
        "give the manifest that was evaluated"
    )


def test_files_that_break_their_contract_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path).write()
    assert "column 'score_1' has a name that tables of predictions need" in run.refusal(
        error=ManifestError, manifest=run.predictions
    )
    assert "expected a column 'score'" in run.refusal(error=PredictionsError, predictions=run.manifest)
    (tmp_path / "features.safetensors").unlink()
    assert run.refusal().startswith(f"{tmp_path / 'features.safetensors'}: expected a readable safetensors file")


@pytest.mark.parametrize("metadata", [{}, {"predictions_sha256": "0" * 64}], ids=["none", "other"])
def test_features_of_another_table_are_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    run = Run(tmp_path).write()
    run.write_layer(metadata)
    assert run.refusal() == (
        f"{tmp_path / 'features.safetensors'}: expected predictions_sha256 {sha256(run.predictions)} of "
        f"{run.predictions}, got {metadata.get('predictions_sha256', 'none')}; predict again, so that both files are "
        "of one run"
    )


WEIGHT, BIAS = LAYERS[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, "expected a tensor 'bias', found none; write it"),
        ({"weight": None, "bias": None},
         "2 problems\n  1. expected a tensor 'weight', found none; write it\n"
         "  2. expected a tensor 'bias', found none; write it"),
        ({"features": np.ones((3, 4), np.float32)},
         f"expected features of shape ({N}, D), one row per prediction, got (3, 4); predict again"),
        ({"features": np.ones(N, np.float32)},
         f"expected features of shape ({N}, D), one row per prediction, got ({N},); predict again"),
        ({"weight": WEIGHT[:, :3]}, "expected weight of shape (1 or 2, 4), got (2, 3); write the last layer's"),
        ({"weight": np.ones((3, 4), np.float32)},
         "expected weight of shape (1 or 2, 4), got (3, 4); write the last layer's"),
        ({"bias": BIAS[:1]}, "expected bias of shape (2,), got (1,); write the last layer's"),
    ],
)  # fmt: skip
def test_tensors_of_other_shapes_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run = Run(tmp_path).write()
    run.write_layer(**change)
    assert run.refusal() == f"{tmp_path / 'features.safetensors'}: {message}"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        # features are 0, and of the two biases one is 0.2 higher: expit(-0.8) = 0.3100 for expit(-1) = 0.2689
        ({"bias": BIAS + np.array([0.0, 0.2], np.float32)}, "0.041"),
        ({"bias": np.full(2, np.nan, np.float32)}, "nan"),
        ({"features": np.full((N, 4), np.inf, np.float32)}, "nan"),
    ],
)
def test_features_that_do_not_give_the_scores_are_refused(
    tmp_path: Path, change: dict[str, Any], difference: str
) -> None:
    run = Run(tmp_path)
    run.features[:] = 0
    run.write().write_layer(**change)
    assert run.refusal() == (
        f"{tmp_path / 'features.safetensors'}: expected features, weight and bias to give the scores of "
        f"{run.predictions} within 0.02, got a difference of {difference}; write the features that enter the last "
        "linear layer"
    )


def test_scores_of_half_precision_belong_to_their_features(tmp_path: Path) -> None:
    run = Run(tmp_path, logits=1).write()
    table = pd.read_csv(run.predictions, keep_default_na=False)
    write_predictions(run.predictions, table.assign(score=table["score"].astype(np.float16).astype(float)))
    run.write_layer()
    assert run.measure(["sex"])["collapse"]["sex"] == expected(run, "sex")


def test_the_last_layer_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = Run(tmp_path).write()
    read = read_last_layer(tmp_path / "features.safetensors", read_predictions(run.predictions))
    assert {name: values.dtype for name, values in read.items()} == dict.fromkeys(("features", "weight", "bias"), float)
    for name, values in (("features", run.features), ("weight", WEIGHT), ("bias", BIAS)):
        np.testing.assert_array_equal(read[name], values)


def test_probability_of_one_and_two_logits() -> None:
    # log 3 against 0 is 3 of 4, and so is log 6 against log 2
    one = np.log([3.0, 1 / 3])
    np.testing.assert_allclose(positive_probability(one), [0.75, 0.25], rtol=1e-15)
    np.testing.assert_allclose(positive_probability(one[:, None]), [0.75, 0.25], rtol=1e-15)
    np.testing.assert_allclose(positive_probability(np.log([[2.0, 6.0], [6.0, 2.0]])), [0.75, 0.25], rtol=1e-15)
