"""What a packed bundle's metadata says of other kinds of outputs than test_packing.py has."""

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from monai_fair.errors import LabelError
from monai_fair.label.output_names import named_outputs


def metadata(tmp_path: Path, *names: str, shape: tuple[object, ...] = ("*", "*", "*")) -> Path:
    pred = {"num_channels": len(names), "channel_def": dict(zip("0123", names, strict=False))}
    formats = {"inputs": {"image": {"spatial_shape": shape}}, "outputs": {"pred": pred}}
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({"version": "1", "network_data_format": formats}))
    return path


def named(path: Path, labels: list[str], trained: dict[str, Any] | None = None, **config: Any) -> tuple[Any, Any]:
    content = named_outputs(path, ConfigParser(config), labels, trained or {})
    formats = content["network_data_format"]
    assert content["version"] == "1"
    return formats["outputs"]["pred"]["channel_def"], formats["inputs"]["image"]["spatial_shape"]


def test_a_label_map_keeps_its_background(tmp_path: Path) -> None:
    path = metadata(tmp_path, "background", "grey", "white")
    assert named(path, ["Background", "a", "b"])[0] == {"0": "Background", "1": "a", "2": "b"}
    assert named(path, [])[0] == {"0": "background", "1": "grey", "2": "white"}
    with pytest.raises(LabelError, match="labels: expected another name than background"):
        named(path, ["a", "background", "b"])
    with pytest.raises(LabelError, match="labels: expected 3 names, got a, b; name every class once"):
        named(path, ["a", "b"])


def test_both_classes_of_one_output_keep_their_names(tmp_path: Path) -> None:
    def pred(*labels: str) -> Any:
        content = named_outputs(metadata(tmp_path, "disease"), ConfigParser({"out_channels": 1}), labels, {})
        return content["network_data_format"]["outputs"]["pred"]

    both = pred("benign", "malignant")
    assert (both["channel_def"], both["classes"]) == ({"0": "malignant"}, {"0": "benign", "1": "malignant"})
    one = pred("malignant")
    assert (one["channel_def"], one["classes"]) == ({"0": "malignant"}, {})


@pytest.mark.parametrize(
    ("trained", "shape", "expected"),
    [({"image_size": [8, 9, 7]}, (40, 48, 40), [8, 9, 7]), ({"image_size": 8}, (224, 224), [8, 8]),
     ({"width": 8}, (224, 224), [224, 224]), ({"image_size": 8}, (), [])],
)  # fmt: skip
def test_the_size_of_images_is_that_of_the_training(
    tmp_path: Path, trained: dict[str, Any], shape: tuple[int, ...], expected: list[int]
) -> None:
    assert named(metadata(tmp_path, "disease", shape=shape), [], trained)[1] == expected


def test_outputs_are_counted_by_the_config_which_stays(tmp_path: Path) -> None:
    config = ConfigParser({"num_classes": 3, "out_channels": "$@num_classes", "late": "$1 / 0", "one": "@net#width"})
    with pytest.raises(LabelError, match="expected a name for each of 3 outputs, got disease; give --labels"):
        named_outputs(metadata(tmp_path, "disease"), config, [], {})
    assert config.get()["one"] == "@net#width"  # MONAI rewrites ids when it parses


@pytest.mark.parametrize("text", ["[]", "{", '{"network_data_format": {"inputs": {}, "outputs": {"pred": {}}}}'])
def test_what_is_no_metadata_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.json").write_text(text)
    with pytest.raises(LabelError, match=r"metadata.json: expected metadata of a bundle, with inputs and outputs; "):
        named(tmp_path / "metadata.json", [])
