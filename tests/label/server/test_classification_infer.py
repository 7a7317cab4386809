"""A score from the server is that of ``bundle run``, and the decision is by the patient's group."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from monai_fair.data.artifacts import sha256
from monai_fair.errors import LabelError
from monai_fair.label import model_replacement
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.metrics import ThresholdFitter, read_thresholds, write_thresholds

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of MONAI Label's own imports
    from monai_fair.label.server import classification_infer
    from monai_fair.label.server.classification_infer import ClassificationInfer

NAMES = ["fair_image_classification", "fairread_image_classification", "brain_mri_fair_classification"]
SKIN, FAIRREAD, BRAIN = NAMES


def score(answer: dict[str, Any]) -> float:
    (found,) = answer["prediction"]
    return float(found["score"])


@pytest.fixture(scope="session")
def known(made: Any) -> pd.DataFrame:
    table = pd.read_csv(made.studies / "manifest.csv", dtype=str, keep_default_na=False)
    names = table["image"].map(lambda image: Path(image).name.removesuffix(".jpg").removesuffix(".nii.gz"))
    return table.set_index(names)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_bundle_run(server: Any, reference: Any, name: str) -> None:
    wanted = reference[name]
    assert len(set(wanted.values())) >= 6  # not one constant, for which equality would say nothing
    found = {image: score(server.infer(name, image)) for image in wanted}
    assert found == wanted  # to the last bit: the same batches of one image, on the same processor


@pytest.mark.parametrize("name", NAMES)
def test_the_threshold_is_that_of_the_group(server: Any, made: Any, known: pd.DataFrame, name: str) -> None:
    thresholds = read_thresholds(made.bundles[name] / "models" / "thresholds.json")
    of_group = {group.levels[0]: group for group in thresholds.groups}
    assert len({group.threshold for group in thresholds.groups}) == 2
    seen = set()
    images = [image for image in known.index if image.startswith("sub-") == (name == BRAIN)]
    for image in images[:6]:
        answer, sex = server.infer(name, image), known.loc[image, "sex"]
        seen.add(sex)
        group = of_group.get(sex)
        assert answer["threshold"] == (group.threshold if group else thresholds.pooled)
        assert answer["threshold_source"] == (f"group {sex}" if group else "pooled: sex is not known")
        assert answer["label"] == int(float(str(np.float32(score(answer)))) >= answer["threshold"])
        assert answer["decision"] == ["no disease", "disease"][answer["label"]]
        assert answer["missing"] == [name for name in ("sex", "age_group") if name in asked(answer, image, known)]
    assert len(seen) > 1


def asked(answer: dict[str, Any], image: str, known: pd.DataFrame) -> list[str]:
    """What the model looks at and the table does not know."""
    looked_at = ["sex", "age_group"] if answer["score_note"] or "age_group" in answer["attributes"] else ["sex"]
    return [name for name in looked_at if not known.loc[image, name]]


def test_what_is_told_beats_what_is_stored_which_beats_the_table(server: Any, known: pd.DataFrame) -> None:
    image = next(name for name, row in known.iterrows() if row["sex"] == "female" and not name.startswith("sub-"))
    assert server.infer(SKIN, image)["attribute_sources"] == {"sex": "manifest.csv"}
    assert server.ask("PUT", "/datastore/image/info", params={"image": image},
                      data={"info": '{"attributes": {"sex": "male"}}'}).ok  # fmt: skip
    answer = server.infer(SKIN, image)
    assert (answer["attributes"], answer["attribute_sources"]) == ({"sex": "male"}, {"sex": "datastore"})
    assert answer["threshold_source"] == "group male"
    answer = server.infer(SKIN, image, attributes={"sex": "female"})
    assert (answer["attributes"], answer["attribute_sources"]) == ({"sex": "female"}, {"sex": "request"})
    answer = server.infer(SKIN, image, attributes={"sex": ""})
    assert (answer["attributes"], answer["missing"]) == ({}, ["sex"])
    answer = server.infer(SKIN, image, attributes={"sex": "diverse"})
    assert answer["threshold_source"] == "pooled: no group diverse was there when thresholds were fitted"
    server.ask("PUT", "/datastore/image/info", params={"image": image}, data={"info": '{"attributes": null}'})
    assert server.infer(SKIN, image)["attribute_sources"] == {"sex": "manifest.csv"}


def test_fairread_is_told_the_patients_attributes(
    server: Any, servers: Any, made: Any, known: pd.DataFrame, tmp_path: Path
) -> None:
    """Told by the request or lacking: the score is that of ``bundle run`` on a manifest that says the same."""
    image = known.index[0]
    told = [("male", "<60"), ("female", ""), ("", ""), ("unheard of", "<60")]
    for place, (sex, age_group) in enumerate(told):
        attributes = {"sex": sex, "age_group": age_group}
        row = pd.DataFrame([{"subject_id": "s", "image": known.loc[image, "image"], **attributes}])
        row.to_csv(tmp_path / "one.csv", index=False)
        path = servers.infer(
            made.bundles[FAIRREAD], tmp_path / "one.csv", made.cohorts[FAIRREAD], tmp_path / str(place)
        )
        answer = server.infer(FAIRREAD, image, attributes=attributes)
        assert score(answer) == servers.scores(path)[image]
        assert answer["missing"] == [name for name, value in attributes.items() if not value]
        assert (answer["score_note"] == "") == (sex == "male")  # of the others something is not known to the model
        unknown = [name for name, value in attributes.items() if value in ("", "unheard of")]
        mean = f": the probability is the mean over what {' and '.join(unknown)} could be, by the training rows"
        assert answer["score_note"].endswith(mean if unknown else "")
    found = {score(server.infer(FAIRREAD, image, attributes={"sex": sex})) for sex in ("male", "female", "")}
    assert len(found) == 3


def test_an_upload_is_answered_as_the_image_itself(server: Any, made: Any, reference: Any) -> None:
    for name, image, ending in ((SKIN, "ISIC_0000001", ".jpg"), (BRAIN, "sub-0002_T1w", ".nii.gz")):
        path = made.studies / f"{image}{ending}"
        with path.open("rb") as file:
            answer = server.ask("POST", f"/infer/{name}", files={"file": (path.name, file)})
        assert answer.status_code == 200, answer.text
        assert score(answer.json()) == reference[name][image]
        assert answer.json()["missing"]  # of an upload nothing is known but what is told with it


def test_the_client_gets_the_same(server: Any, reference: Any) -> None:
    client = server.client()
    _, answer = client.infer(SKIN, "ISIC_0000002", {"device": "cpu"})
    # without a label file beside it the client hands over the text of the answer
    assert score(json.loads(answer)) == reference[SKIN]["ISIC_0000002"]
    session = client.create_session(str(server.studies / "ISIC_0000002.jpg"))["session_id"]
    answer = server.ask("POST", f"/infer/{SKIN}", params={"session_id": session}).json()
    assert score(answer) == reference[SKIN]["ISIC_0000002"]


def test_an_image_that_cannot_be_read_is_said_by_name(server: Any) -> None:
    files = {"file": ("x.jpg", b"no picture")}
    answer = server.ask("POST", f"/infer/{SKIN}", files=files)
    assert answer.status_code == 400
    assert "expected a readable image" in answer.json()["detail"]
    assert "/" not in answer.json()["detail"]  # no path of the server


def test_info_names_classes_and_attributes(server: Any) -> None:
    models = server.client().info()["models"]
    assert set(models) == set(NAMES)
    assert models[SKIN]["classes"] == ["no disease", "disease"]
    assert models[SKIN]["attributes"] == ["sex"]
    assert models[FAIRREAD]["attributes"] == ["sex", "age_group"]
    assert [models[name]["dimension"] for name in NAMES] == [2, 2, 3]
    assert "model_filename" not in models[SKIN]["config"]


@pytest.mark.parametrize(("told", "note"), [
    (None, "sex is not known; age_group is not known: the probability is the mean over what sex and age_group could "
           "be, by the training rows"),
    ([True, False], "sex is not known; age_group is not known: the model is told that sex is missing, and the "
                    "probability is the mean over what age_group could be, by the training rows"),
    ([True, True], "sex is not known; age_group is not known: the model is told that sex and age_group is missing"),
])  # fmt: skip
def test_the_note_says_what_the_model_made_of_it(made: Any, tmp_path: Path, told: list[bool] | None, note: str) -> None:
    """Told that a value is missing, where it has learned what that means, or averaged: one of the two is said."""
    bundle = Path(shutil.copytree(made.bundles[FAIRREAD], tmp_path / FAIRREAD))
    config = bundle / "configs" / "inference.yaml"
    config.write_text(config.read_text() + f"\ninferer#told: {json.dumps(told)}\n")
    task = ClassificationInfer(ServedBundle.of_checked(bundle), {})
    assert task._note(classification_infer.Known()) == note


@pytest.fixture
def replaced(made: Any, tmp_path: Path) -> Any:
    """A copy of a bundle, and a function that puts another model with other thresholds in the place of its own."""
    bundle = ServedBundle.of_checked(Path(shutil.copytree(made.bundles[SKIN], tmp_path / "served" / SKIN)))
    new = tmp_path / "new"
    new.mkdir()
    state = torch.load(bundle.model, weights_only=True)
    torch.save({name: value * 1.5 if value.is_floating_point() else value for name, value in state.items()},
               new / "model.pt")  # fmt: skip
    shutil.copy(bundle.models / "model.json", new / "model.json")
    sex = pd.DataFrame({"sex": ["female", "male"] * 4})
    fitted = ThresholdFitter(attributes=("sex",), min_count=1).fit(
        [0, 0, 1, 1] * 2, [0.91, 0.92, 0.95, 0.96] * 2, sex, split="val"
    )
    write_thresholds(new / "thresholds.json", fitted, source="predictions.csv")

    def replace() -> None:
        start = sha256(bundle.model)
        model_replacement.replace_model(bundle.models, new, {"n": 1}, start_sha256=start)

    return bundle, replace


def killed(replace: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a replacement where it is written down and nothing is done yet."""
    with monkeypatch.context() as patched:
        patched.setattr(
            model_replacement, "finish_replacement", lambda models: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            replace()


def request(made: Any) -> dict[str, Any]:
    return {"image": str(made.studies / "ISIC_0000001.jpg"), "device": "cpu"}


def test_a_model_answers_with_its_own_thresholds(made: Any, replaced: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training puts a new model in place between taking the network and reading thresholds."""
    bundle, replace = replaced
    task = ClassificationInfer(bundle, {})
    _, before = task(request(made))
    write, calls = task.writer, []

    def writer(data: Any, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            replace()
        return write(data, *args)

    monkeypatch.setattr(task, "writer", writer)
    _, answer = task(request(made))
    monkeypatch.undo()
    _, after = ClassificationInfer(bundle, {})(request(made))
    assert score(after) != score(before)
    assert after["threshold"] != before["threshold"]
    assert (score(answer), answer["threshold"]) == (score(after), after["threshold"])
    assert len(calls) == 2


def test_what_a_killed_training_left_is_finished_before_an_answer(
    made: Any, replaced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, replace = replaced
    task = ClassificationInfer(bundle, {})
    killed(replace, monkeypatch)
    assert model_replacement.plan_of(bundle.models).is_file()
    monkeypatch.setattr(classification_infer, "_PATIENCE", 0.2)
    refused = pytest.raises(LabelError, match="expected model and thresholds that belong together")
    with model_replacement.training_lock(bundle.models), refused:  # alive, and slow
        task(request(made))
    _, answer = task(request(made))
    assert not model_replacement.plan_of(bundle.models).is_file()
    assert answer["threshold"] == read_thresholds(bundle.models / "thresholds.json").pooled
    assert answer["threshold"] > 0.9


def test_a_server_starts_with_what_a_killed_training_left(
    serve: Callable[..., Any], made: Any, copied: Callable[[], Path], replaced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, replace = replaced
    killed(replace, monkeypatch)
    server = serve([bundle.path], copied()).start()
    assert not model_replacement.plan_of(bundle.models).is_file()
    assert read_thresholds(bundle.models / "thresholds.json").pooled > 0.9
    server.stop()
