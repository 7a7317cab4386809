"""A score from the server is that of ``bundle run``, and the decision is by the patient's group."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_fair.metrics import read_thresholds

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
