"""worst_group.yaml: the worst group's AUC chooses the model, in one process and in two, and on validation only."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle.config_item import ConfigComponent
from monai.engines import SupervisedTrainer

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_json
from monai_fair.errors import MonaiFairError

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = [pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"), pytest.mark.timeout(600)]

# In the cohort's ten validation rows each sex has a malignant and a benign image.
FEW: dict[str, Any] = {"min_count": 1}


def saved(output: Path) -> dict[str, Any]:
    return torch.load(output / "training_state.pt", weights_only=True)


def pairs_ranked_right(table: pd.DataFrame) -> float:
    """AUC as the probability that a positive is ranked above a negative."""
    positive, negative = (table.loc[table["label"] == label, "score"].to_numpy() for label in (1, 0))
    return float(np.greater.outer(positive, negative).mean() + np.equal.outer(positive, negative).mean() / 2)


def root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@pytest.fixture(scope="module")
def output(bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs, then scores of the model that was kept."""
    folder = tmp_path_factory.mktemp("worst_group")
    bundle.train(folder, "worst_group", max_epochs=4, **FEW)
    return bundle.evaluate(folder, "worst_group", **FEW)


def test_every_component_builds(bundle: Any, tmp_path: Path) -> None:
    for overlays in (("worst_group",), ("worst_group", "nir"), ("nir", "worst_group")):
        workflow = bundle.workflow("train", "small", *overlays, output=tmp_path, kind="train")
        workflow.parser.parse()
        for name, item in workflow.parser.ref_resolver.items.items():
            if isinstance(item, ConfigComponent):
                workflow.parser.get_parsed_content(name)
        trainer = workflow.parser.get_parsed_content("train#trainer")
        assert isinstance(trainer, SupervisedTrainer)
        assert workflow.check_properties() == []
    assert not list(tmp_path.iterdir())


def test_one_epoch_writes_the_selection_beside_the_model(bundle: Any, tmp_path: Path) -> None:
    bundle.train(tmp_path, "worst_group", **FEW)
    names = ["model.json", "model.pt", "selection.json", "training_state.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_the_model_is_that_of_the_best_worst_group(bundle: Any, output: Path) -> None:
    content = read_json(output / "selection.json", "selection")
    worst = [min(epoch["values"].values()) for epoch in content["epochs"]]
    assert len(worst) == 4
    assert len(set(worst)) > 1  # there is something to choose
    (chosen,) = content["choices"]["worst_group"]
    assert chosen["worst"] == saved(output)["best_metric"] == max(worst)
    assert chosen["epoch"] == saved(output)["best_metric_epoch"] == 1 + worst.index(max(worst))
    # what the evaluation of the kept model says of the same rows
    validation = read_predictions(output / "predictions.csv").table.query("split == 'val'")
    by_group = {str(name): pairs_ranked_right(rows) for name, rows in validation.groupby("sex")}
    assert by_group == pytest.approx(content["epochs"][chosen["epoch"] - 1]["values"], abs=1e-12)
    assert pairs_ranked_right(validation) == pytest.approx(chosen["overall"], abs=1e-12)
    assert content["groups"] == {
        str(name): {"n": len(rows), "n_positive": int(rows["label"].sum())} for name, rows in validation.groupby("sex")
    }


def test_the_selection_never_sees_the_test_rows(bundle: Any, output: Path, tmp_path: Path) -> None:
    """With other test labels every epoch and choice is the same."""
    table = pd.read_csv(bundle.cohort / "manifest.csv", dtype=str, keep_default_na=False)
    test = table["split"] == "test"
    table.loc[test, "label"] = table.loc[test, "label"].map({"0": "1", "1": "0"})
    table.to_csv(tmp_path / "m.csv", index=False)
    bundle.train(tmp_path / "run", "worst_group", max_epochs=4, manifest=str(tmp_path / "m.csv"), **FEW)
    assert read_json(tmp_path / "run" / "selection.json", "selection") == read_json(
        output / "selection.json", "selection"
    )


def test_another_attribute_and_three_classes(bundle: Any, tmp_path: Path) -> None:
    table = pd.read_csv(bundle.cohort / "manifest.csv", dtype=str, keep_default_na=False)
    table["label"] = [str(index % 3) for index in range(len(table))]
    table["clinic"] = [("Łódź", "")[index % 5 == 0] for index in range(len(table))]
    table.to_csv(tmp_path / "m.csv", index=False)
    options = {"manifest": str(tmp_path / "m.csv"), "num_classes": 3, "group_attribute": "clinic", **FEW}
    with pytest.raises((MonaiFairError, RuntimeError)) as caught:
        bundle.train(tmp_path / "unsaid", "worst_group", **options)
    assert "scores of 3 classes: expected the class that is positive" in root_cause(caught.value)
    bundle.train(tmp_path / "run", "worst_group", positive_class=2, **options)
    content = read_json(tmp_path / "run" / "selection.json", "selection")
    rows = table[(table["split"] == "val") & (table["clinic"] != "")]
    assert content["groups"] == {"Łódź": {"n": len(rows), "n_positive": int((rows["label"] == "2").sum())}}


def test_an_attribute_that_is_not_there_is_an_error_that_lists_what_is(bundle: Any, tmp_path: Path) -> None:
    with pytest.raises((MonaiFairError, RuntimeError)) as caught:
        bundle.train(tmp_path, "worst_group", group_attribute="gender", **FEW)
    assert "expected the attribute 'gender' in the batch, the ones there are " in root_cause(caught.value)
    assert not (tmp_path / "model.pt").exists()


def test_groups_that_are_all_too_small_end_the_run(bundle: Any, tmp_path: Path, capsys: Any) -> None:
    """Five rows per sex are fewer than the ten positives and negatives that the overlay asks for."""
    with pytest.raises((MonaiFairError, RuntimeError)) as caught:
        bundle.train(tmp_path, "worst_group")
    assert "validation metric 'val_auc_worst': expected a number, got -inf" in root_cause(caught.value)
    said = capsys.readouterr().out
    assert "left out: 'female' (fewer than 10 positives in this group), 'male' (fewer than 10" in said


def test_a_run_of_another_key_metric_is_not_continued(bundle: Any, tmp_path: Path) -> None:
    bundle.train(tmp_path, max_epochs=1)
    with pytest.raises((MonaiFairError, RuntimeError)) as caught:
        bundle.train(tmp_path, "worst_group", max_epochs=2, **FEW)
    assert "key_metric: not set there, val_auc_worst now" in root_cause(caught.value)


# Runs one after the other in the same two processes: starting them costs more than the runs.
DRIVER = """
import json, os, sys
import ignite.distributed as idist
import torch
from monai.bundle import ConfigWorkflow

torch.set_num_threads(1)
found = []
for port, (files, options) in json.load(open("runs.json")):
    os.environ["MASTER_PORT"] = str(port)
    workflow = ConfigWorkflow(files, workflow_type=None, **options)
    workflow.initialize()
    workflow.run()
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    results = workflow.parser.get_parsed_content("validate#key_metric#val_auc_worst").results
    found.append({"metric": evaluator.state.metrics["val_auc_worst"], "names": results.names, "n": results.n.tolist(),
                  "values": results.values.tolist(), "n_total": results.n_total,
                  "rows": len(evaluator.data_loader.sampler)})
    workflow.finalize()
    idist.sync()
json.dump(found, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def seven_rows(bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest with seven validation rows: of each sex a positive and two negatives, and one more."""
    table = pd.read_csv(bundle.cohort / "manifest.csv", dtype=str, keep_default_na=False)
    validation = table[table["split"] == "val"].sort_values(["sex", "label"], ascending=[True, False])
    kept = pd.concat([rows.iloc[[0, -1, -2]] for _, rows in validation.groupby("sex")])
    kept = pd.concat([kept, validation.drop(index=kept.index).iloc[[0]]])
    path = tmp_path_factory.mktemp("seven") / "manifest.csv"
    pd.concat([table[table["split"] != "val"], kept]).to_csv(path, index=False)
    return path


@pytest.mark.slow  # tests/handlers/test_group_metric_distributed.py shows the same of the handler
def test_two_processes_give_the_value_of_one_on_seven_rows(
    bundle: Any, processes: Any, seven_rows: Path, tmp_path: Path
) -> None:
    """The network is the untrained one of the seed; batches of one make scores equal to the last bit."""
    options: dict[str, Any] = {"manifest": str(seven_rows), "batch_size": 1, **FEW}
    options["run"] = ["$@validate#evaluator.run()"]
    names = ("train", "small", "worst_group")
    workflow = bundle.workflow(*names, output=tmp_path / "one", **options)
    workflow.run()
    one = workflow.parser.get_parsed_content("validate#key_metric#val_auc_worst").results
    value = workflow.parser.get_parsed_content("validate#evaluator").state.metrics["val_auc_worst"]
    assert (one.n_total, sorted(one.n)) == (7, [3, 4])
    assert value == min(one.values)
    padded = [False, True]
    more = [{**options, "validate#sampler#even_divisible": choice} for choice in padded]
    files = bundle.files(*names, "multi_gpu_train")
    runs = [[files, bundle.options(tmp_path / f"padded_{index}", chosen)] for index, chosen in enumerate(more)]
    processes.drive(DRIVER, runs, tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    # what a process is given: without padding one has a row less, with padding the first row comes twice
    assert [[found["rows"] for found in rank] for rank in ranks] == [[4, 4], [3, 4]]
    for found in (found for rank in ranks for found in rank):
        assert (tuple(found["names"]), found["n"], found["n_total"]) == (one.names, one.n.tolist(), 7)
        np.testing.assert_allclose(found["values"], one.values, rtol=0, atol=1e-12)
        assert found["metric"] == pytest.approx(value, abs=1e-12)
