"""The app as annotators use it: labels, what is noted of images, many at once, and a server that is killed."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from monai_fair.errors import LabelError
from monai_fair.label.server.datastore import CheckedDatastore

MODEL = "fair_image_classification"
UUIDS = [f"{place}f3c2a64-5d0e-11ef-9c1f-0242ac120002" for place in range(3)]
BROWSER = Path(__file__).parents[2] / "report" / "conftest.py"


def test_a_class_label_is_saved_and_read_back(server: Any, tmp_path: Path) -> None:
    label = tmp_path / "label.json"
    label.write_text('{"label": 1}')
    answer = server.client().save_label("ISIC_0000004", str(label))
    assert (answer["image"], answer["label"]) == ("ISIC_0000004", "ISIC_0000004")
    found = server.ask("GET", "/datastore/label", params={"label": "ISIC_0000004", "tag": "final"})
    assert found.json() == {"label": 1}
    assert "ISIC_0000004" in server.client().datastore()["objects"]
    assert server.ask("GET", "/datastore/").json()["completed"] >= 1
    assert server.ask("DELETE", "/datastore/label", params={"id": "ISIC_0000004", "tag": "final"}).ok
    assert server.ask("HEAD", "/datastore/label", params={"image": "ISIC_0000004", "tag": "final"}).status_code == 404


def test_an_answer_is_kept_when_asked(server: Any) -> None:
    answer = server.infer(MODEL, "ISIC_0000005", save_label=True, label_tag="kept")
    assert answer["saved_as"] == "kept"
    found = server.ask("GET", "/datastore/label", params={"label": "ISIC_0000005", "tag": "kept"}).json()
    assert {key: answer[key] for key in found if key != "latencies"} == {
        key: value for key, value in found.items() if key != "latencies"
    }


def test_an_image_is_uploaded_labelled_and_removed(server: Any, made: Any) -> None:
    client, path = server.client(), str(made.studies / "ISIC_0000006.jpg")
    assert client.upload_image(path, "new.one", {"attributes": {"sex": "male"}}) == {"image": "new.one"}
    answer = server.infer(MODEL, "new.one")
    assert (answer["threshold_source"], answer["attribute_sources"]) == ("group male", {"sex": "datastore"})
    again = server.ask("PUT", "/datastore/image", params={"image": "new.one"}, files={"file": ("x.jpg", b"x")})
    assert (again.status_code, "there is such an image" in again.text) == (400, True)
    assert server.ask("DELETE", "/datastore/image", params={"id": "new.one"}).ok
    assert not (server.studies / "new.one.jpg").exists()
    assert server.ask("POST", f"/infer/{MODEL}", params={"image": "new.one"}).status_code == 404


def test_sixteen_at_once_lose_nothing(server: Any, reference: Any, tmp_path: Path) -> None:
    """Answers, labels, notes and next samples, while a task of another process saves labels too."""
    images = [f"ISIC_{number:07d}" for number in range(10, 26)]
    started = server.ask("POST", f"/batch/infer/{MODEL}", json={"images": images, "label_tag": "beside"})
    assert started.json()["status"] == "SUBMITTED"

    def work(place: int) -> float:
        image = images[place]
        label = tmp_path / f"{place}.json"
        label.write_text(json.dumps({"label": place % 2}))
        score = server.infer(MODEL, image)["prediction"][0]["score"]
        for note in range(3):
            info = json.dumps({f"note{note}": place})
            assert server.ask("PUT", "/datastore/image/info", params={"image": image}, data={"info": info}).ok
            server.client().save_label(image, str(label), tag=f"tag{note}")
            assert server.client().next_sample("random", {})["id"]
        return float(score)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(work, range(16)))
    assert server.wait("/batch/infer")["status"] == "DONE"
    assert found == [reference[MODEL][image] for image in images]
    objects = server.client().datastore()["objects"]
    on_disk = json.loads((server.studies / "datastore_v2.json").read_text())["objects"]
    for table in (objects, on_disk):
        for place, image in enumerate(images):
            noted = table[image]["image"]["info"]
            assert [noted.get(f"note{note}") for note in range(3)] == [place] * 3
            assert {"tag0", "tag1", "tag2", "beside"} <= set(table[image]["labels"])
    for place, image in enumerate(images):
        assert json.loads((server.studies / "labels" / "tag2" / f"{image}.json").read_text()) == {"label": place % 2}


def test_writers_that_do_not_know_of_each_other_lose_nothing(tmp_path: Path) -> None:
    """Each has a table of its own, as processes have, and writes into the one file."""
    (tmp_path / "x.png").write_bytes(b"")
    stores = [CheckedDatastore(str(tmp_path), ["*.png"]) for _ in range(4)]
    label = tmp_path / "label.json"
    label.write_text("{}")

    def write(place: int) -> None:
        for count in range(25):
            stores[place].update_image_info("x", {f"{place} {count}": count})
            stores[place].save_label("x", str(label), f"tag{place}.{count}", {})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    for store in [*stores, CheckedDatastore(str(tmp_path), ["*.png"])]:
        info = store.get_image_info("x")
        assert all(info[f"{place} {count}"] == count for place in range(4) for count in range(25))
        assert len(store.get_labels_by_image_id("x")) == 100


def test_a_killed_server_starts_again_whole(
    serve: Callable[..., Any], made: Any, copied: Callable[[], Path], tmp_path: Path
) -> None:
    server = serve([made.bundles[MODEL]], copied()).start()
    images = [f"ISIC_{number:07d}" for number in range(60)]
    label = tmp_path / "label.json"
    label.write_text('{"label": 1}')
    saved = []

    def save() -> None:
        for image in images:
            try:
                server.client().save_label(image, str(label))
            except Exception:  # the server is gone
                return
            saved.append(image)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(save)
        while len(saved) < 5:
            time.sleep(0.01)
        server.stop(signal.SIGKILL)
    # what a kill at the worst moment would leave as well: sessions half made, and parts of files
    half, torn, young, foreign = (server.folder / "sessions" / name for name in (*UUIDS, "archive.2024"))
    for folder in (half, torn, young, foreign):
        folder.mkdir(parents=True)
    (torn / "meta.info").write_text('{"name": "to')
    for folder in (half, torn, foreign):
        os.utime(folder, (0, 0))
    (server.studies / "labels" / "final" / ".ISIC_0000059.json.x1.part").write_text('{"la')
    (server.studies / ".datastore_v2.json.x1.part").write_text("{")
    server.start()
    kept = {image for image, entry in server.client().datastore()["objects"].items() if "final" in entry["labels"]}
    assert set(saved) <= kept
    assert len(kept) <= len(saved) + 1  # of the one that was asked for when it died, nobody was told
    for image in kept:
        assert json.loads((server.studies / "labels" / "final" / f"{image}.json").read_text()) == {"label": 1}
    assert not torn.exists()
    assert not half.exists()
    assert young.exists()  # it may be written at this moment
    assert foreign.exists()  # no session, and nobody's to remove
    server.infer(MODEL, images[0])
    server.stop()


def test_labels_that_lie_there_are_found_without_the_table(
    serve: Callable[..., Any], made: Any, copied: Callable[[], Path]
) -> None:
    studies = copied()
    (studies / "labels" / "final").mkdir(parents=True)
    (studies / "labels" / "final" / "ISIC_0000001.json").write_text('{"label": 0}')
    shutil.copy(studies / "ISIC_0000001.jpg", studies / "a name (1).jpg")
    server = serve([made.bundles[MODEL]], studies).start()
    objects = server.client().datastore()["objects"]
    assert [image for image, entry in objects.items() if entry["labels"]] == ["ISIC_0000001"]
    assert "a name (1)" not in objects  # no name that a request may have
    assert "1 files are left out: a name (1).jpg" in server.said()
    server.stop()


def test_a_class_does_not_replace_a_mask(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    store = CheckedDatastore(str(tmp_path), ["*.png", "*.nii.gz", "*.nrrd"])
    for name in ("a.json", "b.nii.gz", "c.nrrd"):
        (tmp_path / name).write_bytes(name.encode())

    def save(name: str, tag: str) -> None:
        store.save_label("x", str(tmp_path / name), tag, {})

    save("b.nii.gz", "final")
    save("a.json", "class")
    for name, tag, there in (("a.json", "final", ".nii.gz"), ("b.nii.gz", "class", ".json")):
        with pytest.raises(LabelError, match=f"expected a file such as the {there} of tag '{tag}'"):
            save(name, tag)
    assert (tmp_path / "labels" / "final" / "x.nii.gz").read_bytes() == b"b.nii.gz"
    assert sorted(path.name for path in (tmp_path / "labels" / "final").iterdir()) == ["x.nii.gz"]
    save("c.nrrd", "final")  # a mask as another kind of file is a new mask
    assert [path.name for path in (tmp_path / "labels" / "final").iterdir()] == ["x.nrrd"]


def test_one_id_is_one_file(tmp_path: Path) -> None:
    for name in ("x.png", "x.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(LabelError, match=r"'x': expected one image file of this name, found x\.jpg, x\.png"):
        CheckedDatastore(str(tmp_path), ["*.png", "*.jpg"])


def test_what_is_noted_of_an_image_stays_a_note(server: Any) -> None:
    """MONAI Label puts notes over the answers of strategies, and strategies calculate with the times in them."""
    place = {"params": {"image": "ISIC_0000007"}}
    for info in (
        {"id": "x"},
        {"reason": "x", "group": "x"},
        {"strategy": {"random": {"ts": 10**12}}},
        {"path": "/etc"},
    ):
        answer = server.ask("PUT", "/datastore/image/info", **place, data={"info": json.dumps(info)})
        assert (answer.status_code, "image info" in answer.text) == (400, True)
    found = server.ask("GET", "/datastore/image/info", **place).json()
    assert not {"id", "reason", "group", "path"} & set(found)
    assert found["name"] == "ISIC_0000007.jpg"
    sample = server.client().next_sample("first", {})
    assert "path" not in sample
    assert sample["name"].startswith(sample["id"])
    noted = server.ask("GET", "/datastore/image/info", params={"image": sample["id"]}).json()
    assert noted["strategy"]["first"]["client_id"] == "test"  # MONAI Label's own note is one of the fine ones


def test_scoring_is_not_started_by_a_label(server: Any) -> None:
    server.client().next_sample("first", {})
    answer = server.ask("GET", "/scoring/")
    assert answer.status_code == 404 or answer.json()["status"] != "RUNNING"


def test_the_viewer_opens_in_a_browser(server: Any) -> None:
    """OHIF, which MONAI Label brings along: the page is drawn by its script, from this server alone."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("report_conftest", BROWSER)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the path")
    with module.Browser(server.folder / "profile") as browser:
        browser.send("Page.navigate", url=f"{server.url}/ohif/")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if browser.evaluate("document.querySelector('#root') && document.querySelector('#root').innerText.length"):
                break
            time.sleep(0.2)
        text = browser.evaluate("document.querySelector('#root').innerText")
        assert re.search("study|studies|patient|data source", text, re.IGNORECASE), text
