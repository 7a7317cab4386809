"""Configs, overlays and options become one file that says the same."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_fair.errors import LabelError
from monai_fair.label.config_merging import check_keys, fit_settings, merge_configs, override, write_config

BUNDLES = Path(__file__).parents[2] / "bundles"
MERGED = [
    (path.parents[1].name, [path.name, *overlays])
    for path in sorted(BUNDLES.glob("*/configs/inference.yaml"))
    for overlays in ([], ["small.yaml"], ["evaluate.yaml"], ["resnet.yaml"])
    if all((path.parent / name).is_file() for name in overlays)
] + [
    ("fair_image_classification", ["train.yaml", "nir.yaml"]),
    ("fair_image_classification", ["train.yaml", "sgd.yaml"]),
]


def parser(**content: Any) -> Any:
    return ConfigParser(content)


@pytest.mark.parametrize(("bundle", "names"), MERGED)
def test_a_merged_config_is_what_a_run_reads(bundle: str, names: list[str], tmp_path: Path) -> None:
    if "evaluate.yaml" in names and bundle != "brain_mri_inr_registration":
        names = ["train.yaml", *names[1:]]
    files = [BUNDLES / bundle / "configs" / name for name in names]
    run = ConfigWorkflow([str(path) for path in files], logging_file=False, workflow_type=None, num_workers=7)
    merged = merge_configs(files)
    override(merged, {"num_workers": 7})
    written = write_config(tmp_path / "one.yaml", merged, title="of several")
    expected = {key: value for key, value in run.parser.get().items() if key != "_meta_"}
    assert ConfigParser.load_config_file(written) == expected
    assert written.read_text().startswith("# of several\n")


# keys are names; MONAI reads # and :: as a path
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


@given(content=st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), VALUES, max_size=4))
def test_any_config_reads_back_equal(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("config") / "one.yaml"
    assert yaml.safe_load(write_config(path, parser(**content), title="t").read_text()) == (content or {})


def test_a_tuple_is_a_list_and_infinity_stays(tmp_path: Path) -> None:
    shared = [1, 2]
    config = parser(shape=(1, 2), far=math.inf, one=shared, other=shared)
    text = write_config(tmp_path / "one.yaml", config, title="first\nsecond").read_text()
    assert text == "# first\n# second\nshape: [1, 2]\nfar: .inf\none: [1, 2]\nother: [1, 2]\n"


def test_what_yaml_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"^one.yaml: expected values that YAML can hold; "):
        write_config(tmp_path / "one.yaml", parser(device=object()), title="t")
    assert not (tmp_path / "one.yaml").exists()


def test_an_overlay_that_adds_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("handlers: [1]\n")
    (tmp_path / "b.yaml").write_text("+handler: [2]\n")
    (tmp_path / "c.yaml").write_text("+handlers: [2]\n")
    assert merge_configs([tmp_path / "a.yaml", tmp_path / "c.yaml"]).get() == {"handlers": [1, 2]}
    with pytest.raises(
        LabelError, match=r"^a.yaml, b.yaml: expected configs that can be laid over each other; .*handler"
    ):
        merge_configs([tmp_path / "a.yaml", tmp_path / "b.yaml"])


@pytest.mark.parametrize("key", ["size", "net#layers", "net::layers", "net#layers#1"])
def test_a_key_of_either_config_is_known(key: str) -> None:
    first, second = parser(size=3), parser(net={"layers": [1, 2]})
    assert check_keys({"a.yaml": first, "b.yaml": second}, [key]) == []
    override(first, {key: 9})
    override(second, {key: 9})
    assert first.get() == {"size": 9 if key == "size" else 3}
    assert second.get()["net"]["layers"] == {"net#layers#1": [1, 9], "size": [1, 2]}.get(key, 9)


@pytest.mark.parametrize(
    ("key", "remedy"),
    [("siez", "did you mean size?"), ("net#layer", "did you mean net#layers?"), ("zzz", "a new key needs an overlay"),
     ("+size", "did you mean size?"), ("net#layers#2", "did you mean net#layers?"), ("size#x", "did you mean size?")],
)  # fmt: skip
def test_a_key_of_no_config_is_told_with_the_nearest(key: str, remedy: str) -> None:
    (problem,) = check_keys({"a.yaml": parser(size=3, net={"layers": [1, 2]}), "b.yaml": parser(size=1)}, [key, "size"])
    assert problem.startswith(f"{key}: expected a key of a.yaml or b.yaml, found none; {remedy}")


def test_settings_of_the_training_are_set_where_a_key_holds_them() -> None:
    config = parser(
        image_size=224, load_size="$@image_size * 2", mean=[0.5], net={"width": 8}, told=1, shape="@image_size",
        input_settings={"image_size": "@image_size", "load_size": "@load_size", "mean": "@mean", "width": "@net#width",
                        "told": "@told", "fixed": 3, "shape": "@shape", "lost": "@nowhere"},
    )  # fmt: skip
    trained = {"image_size": 28, "load_size": 99, "mean": [0.5], "width": 4, "told": 2, "fixed": 4, "shape": 7}
    trained |= {"lost": 1, "unknown": 5}
    # mean is right, told was told; what is computed, fixed or nowhere cannot be set
    assert fit_settings(config, trained, given=["told"]) == {"image_size": 28, "net#width": 4}
    assert (config["image_size"], config["net#width"], config["told"]) == (28, 4, 1)
    assert (config["load_size"], config["shape"], config["mean"]) == ("$@image_size * 2", "@image_size", [0.5])


def test_a_config_without_settings_stays() -> None:
    config = parser(image_size=224)
    assert fit_settings(config, {"image_size": 28}, given=[]) == {}
    assert config.get() == {"image_size": 224}
