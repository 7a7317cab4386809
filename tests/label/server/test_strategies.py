"""Strategies as a server calls them: what annotators are given next, and that nobody gets the image of another."""

import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from monai_fair.data.artifacts import write_json
from monai_fair.errors import LabelError
from monai_fair.label.demographics import Demographics
from monai_fair.label.image_states import StoredImage, model_key
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.sidecar import ImageScores, Sidecar, sidecar_path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of MONAI Label's own imports
    from monai_fair.label.server.datastore import CheckedDatastore
    from monai_fair.label.server.strategies import Desk, FairStrategy, fair_strategies

NAMES = [f"i{n}" for n in range(8)]
SEX = dict(zip(NAMES, "ffmmmmff", strict=True))


@pytest.fixture
def store(tmp_path: Path) -> CheckedDatastore:
    """Eight images, of which two male ones have a label."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.png").write_bytes(name.encode())
    (tmp_path / "label.json").write_text('{"label": 1}')
    found = CheckedDatastore(str(folder), ["*.png"])
    for name in ("i2", "i3"):
        found.save_label(name, str(tmp_path / "label.json"), "final", {})
    return found


@pytest.fixture
def bundle(tmp_path: Path) -> ServedBundle:
    folder = tmp_path / "skin_classification"
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "configs" / "inference.yaml").write_text("device: cpu\n")
    (folder / "models" / "model.pt").write_bytes(b"weights")
    return ServedBundle(folder.name, folder, "classification")


KNOWN = Demographics({name: {"sex": {"f": "female", "m": "male"}[sex]} for name, sex in SEX.items()}, "manifest.csv")


def ask(strategies: dict[str, Any], name: str, store: CheckedDatastore, **options: Any) -> dict[str, str] | None:
    found = strategies[name]({"strategy": name, **options}, store)
    return None if found is None else dict(found)


def test_the_answer_has_the_image_its_group_and_the_reason(store: CheckedDatastore, bundle: ServedBundle) -> None:
    strategies = fair_strategies([bundle], KNOWN)
    assert set(strategies) == {"least_represented", "worst_subgroup", "uncertain", "mix"}
    assert ask(strategies, "least_represented", store) == {
        "id": "i0",
        "reason": "sex=female has 0 labelled images, the fewest of 2 groups",
        "group": "sex=female",
    }
    assert ask(strategies, "least_represented", store, by="sex", client_id="somebody")["id"] == "i1"  # type: ignore[index]


def test_what_is_stored_with_an_image_beats_the_table(store: CheckedDatastore, bundle: ServedBundle) -> None:
    store.update_image_info("i0", {"attributes": {"sex": "male"}})
    found = ask(fair_strategies([bundle], KNOWN), "least_represented", store)
    assert found is not None
    assert found["id"] == "i1"


def test_nobody_gets_the_image_of_another(store: CheckedDatastore, bundle: ServedBundle) -> None:
    strategies = fair_strategies([bundle], KNOWN)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: ask(strategies, "least_represented", store), range(6)))
    assert sorted(each["id"] for each in found if each) == ["i0", "i1", "i4", "i5", "i6", "i7"]
    again = ask(strategies, "least_represented", store)
    assert again is not None
    assert "all 6 images without a label were given out within the last 10 minutes" in again["reason"]


def test_what_monai_label_noted_counts_after_a_restart(store: CheckedDatastore, bundle: ServedBundle) -> None:
    now = time.time()
    store.update_image_info("i0", {"strategy": {"first": {"ts": int(now), "client_id": "somebody"}}})
    store.update_image_info("i1", {"strategy": {"first": {"ts": int(now) - 601, "client_id": "somebody"}}})
    strategy = FairStrategy("least_represented", [bundle], KNOWN, Desk(), clock=lambda: now)
    assert strategy({}, store)["id"] == "i1"  # type: ignore[index]


def test_times_that_are_none_or_to_come_do_not_count(store: CheckedDatastore, bundle: ServedBundle) -> None:
    now = time.time()
    # as the table of a datastore may have them, whoever has written them
    infos: dict[str, Any] = {
        "i0": {"a": {"ts": 1e12}, "b": {"ts": "soon"}, "c": {"ts": None}, "d": 3, "e": {"ts": [now]}},
        "i1": {"a": {"ts": float("nan")}, "b": {"ts": now - 5}},
    }
    noted = {name: {"strategy": notes} for name, notes in infos.items()} | {"i4": {"strategy": "text"}}
    desk = Desk()
    assert [desk.last(name, info, now) for name, info in noted.items()] == [0.0, now - 5, 0.0]
    desk.give("i0", now - 3)
    assert desk.last("i0", noted["i0"], now) == now - 3


def test_a_classifier_has_labels_of_a_class_only(store: CheckedDatastore, bundle: ServedBundle, tmp_path: Path) -> None:
    (tmp_path / "mask.nii.gz").write_bytes(b"mask")
    for name in ("i4", "i5"):
        store.save_label(name, str(tmp_path / "mask.nii.gz"), "final", {})
    other = ServedBundle("organs", bundle.path, "other")
    strategies = fair_strategies([bundle, other], KNOWN)
    found = {
        name: ask(strategies, "least_represented", store, model=name, by="sex") for name in (bundle.name, "organs")
    }
    assert [each and each["id"] for each in found.values()] == ["i0", "i1"]  # i0 has been given out
    for name in ("i0", "i1", "i6", "i7"):
        store.save_label(name, str(tmp_path / "label.json"), "final", {})
    assert ask(strategies, "least_represented", store, model="organs") is None
    left = ask(strategies, "least_represented", store)
    assert left is not None
    assert left["id"] == "i4"
    assert left["reason"].startswith("sex=male has 2 labelled images")


def test_options_that_do_nothing_are_none() -> None:
    assert not FairStrategy.request_keys & {"label_tag", "labels"}


def test_nothing_is_left_to_label(store: CheckedDatastore, bundle: ServedBundle, tmp_path: Path) -> None:
    for name in NAMES:
        store.save_label(name, str(tmp_path / "label.json"), "final", {})
    assert ask(fair_strategies([bundle], KNOWN), "least_represented", store) is None


def scored(bundle: ServedBundle, store: CheckedDatastore, values: dict[str, float]) -> None:
    made = {name: StoredImage(name, Path(store.get_image_uri(name))).fingerprint(()) for name in values}
    sidecar = Sidecar(sidecar_path(store._datastore_path, bundle.name), model_key(bundle))
    sidecar.update(ImageScores.of(made, scores=list(values.values())))


def test_scores_of_the_sidecar_decide_and_those_of_a_changed_image_do_not(
    store: CheckedDatastore, bundle: ServedBundle
) -> None:
    strategies = fair_strategies([bundle], KNOWN)
    with pytest.raises(LabelError, match="uncertain: expected images that are scored, got none"):
        ask(strategies, "uncertain", store)
    scored(bundle, store, {"i0": 0.9, "i4": 0.55, "i5": 0.48})
    Path(store.get_image_uri("i5")).write_bytes(b"another picture")
    found = ask(strategies, "uncertain", store)
    assert found == {
        "id": "i4",
        "reason": "the score 0.550 is 0.050 from the threshold 0.500 (no thresholds are stored), the nearest of 2 "
        "scored images; 4 of 6 images without a label are not scored yet",
        "group": "",
    }
    # ranks of the images that are left: i0 2 and 1.5, i5 is not scored
    found = ask(strategies, "mix", store, mix="uncertain=0.5,least_represented=0.5")
    assert found is not None
    assert found["id"] == "i0"
    (bundle.models / "model.pt").write_bytes(b"other weights")
    with pytest.raises(LabelError, match="expected images that are scored, got none"):
        ask(strategies, "uncertain", store)


def write_audit(bundle: ServedBundle) -> None:
    def cell(low: float) -> dict[str, Any]:
        return {"value": 0.9, "low": low, "n": 50, "reason": None, "interval_reason": None}

    groups = [{"name": name, "cells": {"own": {"auc": cell(low)}}} for name, low in (("female", 0.8), ("male", 0.6))]
    content = {
        "runs": [{"name": "own"}],
        "targets": [{"name": "", "tables": [{"attributes": ["sex"], "groups": groups}]}],
    }
    write_json(bundle.models / "metrics.json", "audit", content)


def test_the_audit_decides_for_the_worst_subgroup(store: CheckedDatastore, bundle: ServedBundle) -> None:
    strategies = fair_strategies([bundle], KNOWN)
    with pytest.raises(
        LabelError, match=r"expected an audit of skin_classification \(models/metrics\.json\), found none"
    ):
        ask(strategies, "worst_subgroup", store)
    write_audit(bundle)
    assert ask(strategies, "worst_subgroup", store) == {
        "id": "i4",
        "reason": "auc of sex=male is 0.900, its lower bound 0.600 (n = 50) the smallest of 2 groups",
        "group": "sex=male",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "other"}, "model: expected one of skin_classification, got 'other'"),
        ({"by": "race"}, r"by: expected an attribute that an image has \(sex\), got 'race'"),
        ({"subgroups": "brain"}, r"subgroups: expected a registration bundle that has some \(there is none\)"),
        ({"missing": "drop"}, "missing: expected last or group, got 'drop'"),
        ({"mix": "random=1"}, "mix: expected least_represented=0.5, .* got 'random=1'"),
        ({"mix": "uncertain=much"}, "mix: expected .* got 'uncertain=much'"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    store: CheckedDatastore, bundle: ServedBundle, options: dict[str, str], message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        ask(fair_strategies([bundle], KNOWN), "mix", store, **options)
    assert ask(fair_strategies([bundle], KNOWN), "least_represented", store) is not None
