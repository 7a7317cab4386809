"""The classification bundles in MONAI Label's own app, which knows nothing of this package but what a bundle names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

NAMES = ["fair_image_classification", "fairread_image_classification", "brain_mri_fair_classification"]


@pytest.fixture(scope="module")
def stock(serve: Callable[..., Any], servers: Any, made: Any, copied: Any, tmp_path_factory: Any) -> Any:
    app = servers.stock_app(tmp_path_factory.mktemp("app"), made.bundles)
    # these two keep it from asking the network
    server = serve([], copied(), app=app, zoo_source="local", sam2="false")
    server.conf["models"] = ",".join(made.bundles)
    return server.start()


@pytest.mark.parametrize("name", NAMES)
def test_the_stock_app_gives_the_scores_of_bundle_run(
    stock: Any, servers: Any, made: Any, name: str, tmp_path: Path
) -> None:
    """It tells a model nothing of patients: the reference is a manifest in which every attribute is missing."""
    root = made.cohorts[name]
    table = pd.read_csv(made.studies / "manifest.csv", dtype=str, keep_default_na=False)
    table = table[[(root / image).is_file() for image in table["image"]]].iloc[:6]
    table.assign(sex="", age_group="").to_csv(tmp_path / "manifest.csv", index=False)
    wanted = servers.scores(servers.infer(made.bundles[name], tmp_path / "manifest.csv", root, tmp_path / "out"))
    assert len(set(wanted.values())) == 6
    found = {}
    for image in wanted:
        (answer,) = stock.infer(name, image)["prediction"]
        assert (answer["idx"], answer["label"]) == (0, "disease")
        found[image] = answer["score"]
    assert found == wanted


def test_the_stock_app_lists_them_as_classifiers(stock: Any) -> None:
    models = stock.client().info()["models"]
    assert {name: models[name]["type"] for name in NAMES} == dict.fromkeys(NAMES, "classification")
