"""A manifest with biased labels in an evaluator: clean labels travel in the batch and stay out of predictions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd
from torch import nn

from monai_fair.data import bias_label_files, load_datalist, read_predictions
from monai_fair.handlers import PredictionSaver


@pytest.mark.parametrize("split", ["", "test"])
def test_batches_carry_clean_labels_and_predictions_do_not(tmp_path: Path, split: str) -> None:
    rows = [(part, number, number % 2) for part in ("train", "val", "test") for number in range(8)]
    table = pd.DataFrame(rows, columns=["split", "number", "label"])
    table.insert(0, "subject_id", [f"s{row:02d}" for row in table.index])
    table.insert(1, "image", [f"{row}.npy" for row in table.index])
    table = table.drop(columns="number").assign(sex="female")
    for row in table.index:
        np.save(tmp_path / f"{row}.npy", np.float32([row, 1]))
    table.to_csv(tmp_path / "manifest.csv", index=False)
    biased = tmp_path / "biased.csv"
    bias_label_files(tmp_path / "manifest.csv", biased, group={"sex": "female"}, rate=0.5)  # 2 of 4 positives

    items = load_datalist(biased, tmp_path)
    loaded = Dataset([{**item, "image": torch.from_numpy(np.load(item["image"]))} for item in items])
    loader = DataLoader(loaded, batch_size=8)
    batches = list(loader)
    assert [int((batch["label"] != batch["clean_label"]).sum()) for batch in batches] == [2, 2, 0]
    assert all(batch["clean_label"].tolist() == [0, 1] * 4 for batch in batches)

    saver = PredictionSaver(str(tmp_path / "predictions.csv"), str(biased), split=split)
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=nn.Linear(2, 1),
        postprocessing=Activationsd("pred", sigmoid=True),
        val_handlers=[saver],
    ).run()
    found = read_predictions(tmp_path / "predictions.csv")
    assert list(found.table) == ["subject_id", "image", "split", "label", "score", "sex"]
    assert found.attributes == ("sex",)
    # what is written as test, such as a fold that is left out, has its clean labels
    assert found.table["label"].tolist() == [item["clean_label" if split else "label"] for item in items]
    test = found.table["split"] == "test"
    assert found.table.loc[test, "label"].tolist() == [0, 1] * (12 if split else 4)
