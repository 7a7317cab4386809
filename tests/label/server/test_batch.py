"""Batch inference over the datastore: a row for every image, labels kept, and progress to be seen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODEL = "fair_image_classification"


@pytest.fixture(scope="module")
def served(serve: Callable[..., Any], made: Any, copied: Callable[[], Path]) -> Any:
    studies = copied()
    for path in [*studies.glob("sub-*"), *sorted(studies.glob("*.jpg"))[4:]]:
        path.unlink()
    (studies / "broken.jpg").write_bytes(b"no picture")
    return serve([made.bundles[MODEL]], studies).start()


def test_every_image_gets_a_row(served: Any, reference: Any) -> None:
    answer = served.ask("POST", f"/batch/infer/{MODEL}", params={"run_sync": True}, json={"save_label": True})
    assert answer.status_code == 200, answer.text
    rows = answer.json()
    assert sorted(rows) == ["ISIC_0000000", "ISIC_0000001", "ISIC_0000002", "ISIC_0000003", "broken"]
    assert "expected a readable image" in rows.pop("broken")["error"]
    for image, row in rows.items():
        assert row["params"]["prediction"][0]["score"] == reference[MODEL][image]
        kept = json.loads(served.ask("GET", "/datastore/label", params={"label": image, "tag": "original"}).text)
        assert (kept["label"], kept["decision"]) == (row["params"]["label"], row["params"]["decision"])
    assert served.ask("GET", "/datastore/").json()["label_tags"] == {"original": 4}
    assert served.ask("HEAD", "/datastore/label", params={"image": "broken", "tag": "original"}).status_code == 404


def test_a_task_beside_the_server_shows_its_progress(served: Any) -> None:
    options = {"label_tag": "again", "images": "all"}
    assert served.ask("POST", f"/batch/infer/{MODEL}", json=options).json()["status"] == "SUBMITTED"
    ended = served.wait("/batch/infer")
    assert ended["status"] == "DONE"
    said = "\n".join(ended["details"])
    for done in range(1, 6):
        assert f"batch inference: {done} of 5: " in said
    assert "1 of 5 images failed" in said
    # what a process of its own has saved, the server knows
    assert served.ask("GET", "/datastore/").json()["label_tags"]["again"] == 4


def test_images_may_be_chosen(served: Any) -> None:
    options = {"images": ["ISIC_0000001"], "save_label": False}
    rows = served.ask("POST", f"/batch/infer/{MODEL}", params={"run_sync": True}, json=options).json()
    assert list(rows) == ["ISIC_0000001"]
    rows = served.ask("POST", f"/batch/infer/{MODEL}", params={"run_sync": True}, json={"max_batch_size": 2}).json()
    assert list(rows) == ["ISIC_0000000", "ISIC_0000001"]


def test_answers_are_kept_unless_told_otherwise(served: Any) -> None:
    options = {"images": ["ISIC_0000002"], "label_tag": "unkept"}
    for kept, told in ((0, False), (0, "false"), (1, True)):
        options["save_label"] = told
        answer = served.ask("POST", f"/batch/infer/{MODEL}", params={"run_sync": True}, json=options)
        assert answer.json()["ISIC_0000002"]["params"]["label"] in (0, 1)
        assert served.ask("GET", "/datastore/").json()["label_tags"].get("unkept", 0) == kept


def test_annotators_labels_are_not_written_over(served: Any) -> None:
    before = served.ask("GET", "/datastore/").json()["label_tags"]
    for path, options in (
        (f"/batch/infer/{MODEL}", {"json": {"label_tag": "final"}}),
        (
            f"/infer/{MODEL}",
            {
                "params": {"image": "ISIC_0000002"},
                "data": {"params": json.dumps({"save_label": True, "label_tag": "final"})},
            },
        ),
    ):
        answer = served.ask("POST", path, **options)
        assert (answer.status_code, "under which are annotators' labels" in answer.text) == (400, True)
    assert served.ask("GET", "/datastore/").json()["label_tags"] == before
