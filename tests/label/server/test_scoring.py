"""Scoring by a real server: scores of ``bundle run``, the next image by HTTP, and a server that is killed meanwhile."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from monai_fair.label.image_states import model_key
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.sidecar import Sidecar, sidecar_path

SKIN = "fair_image_classification"


def given_next(server: Any, strategy: str, **options: Any) -> dict[str, Any]:
    answer = server.ask("POST", f"/activelearning/{strategy}", json=options)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_server_scores_and_gives_out_the_next_image(
    serve: Callable[..., Any], made: Any, copied: Callable[[], Path], reference: dict[str, dict[str, float]]
) -> None:
    studies = copied()
    server = serve([made.bundles[SKIN]], studies).start()
    refused = server.ask("POST", "/activelearning/uncertain", json={})
    assert refused.status_code == 400
    assert "no image has any" in refused.text or "expected images that are scored" in refused.text
    done = server.ask("POST", f"/scoring/{SKIN}", params={"run_sync": "true"}, json={"part": 5}).json()
    images = {path.stem for path in studies.glob("*.jpg")}
    assert (done["model"], done["skipped"]) == (SKIN, 0)
    assert done["scored"] >= len(images) > 0
    bundle = ServedBundle.read(made.bundles[SKIN])
    rows = Sidecar(sidecar_path(studies, SKIN), model_key(bundle)).read()
    place = rows.place()
    wanted = reference[SKIN]
    pictures = sorted(set(wanted) & set(place))
    np.testing.assert_allclose(rows.scores[[place[n] for n in pictures]], [wanted[n] for n in pictures], atol=1e-6)
    first = given_next(server, "least_represented", client_id="one")
    second = given_next(server, "least_represented", client_id="two")
    assert first["id"] != second["id"]
    assert "labelled images, the fewest of" in first["reason"]
    assert given_next(server, "uncertain")["reason"].startswith("the score ")
    client = server.client().next_sample("mix", {"mix": "uncertain=1,least_represented=1"})
    assert client["id"] not in (first["id"], second["id"])
    # beside the server: what is scored stays
    task = server.ask("POST", f"/scoring/{SKIN}", json={}).json()
    assert task["status"] in ("SUBMITTED", "RUNNING")
    assert server.wait("/scoring/")["status"] == "DONE", server.said()[-3000:]
    after = Sidecar(sidecar_path(studies, SKIN), model_key(bundle)).read()
    assert after.image_ids == rows.image_ids
    server.stop()


def test_a_server_killed_in_the_middle_of_scoring_goes_on(
    serve: Callable[..., Any], made: Any, copied: Callable[[], Path]
) -> None:
    studies = copied()
    server = serve([made.bundles[SKIN]], studies).start()
    server.ask("POST", f"/scoring/{SKIN}", json={"part": 1})
    path, end = sidecar_path(studies, SKIN), time.monotonic() + 100
    while not path.is_file() and time.monotonic() < end:
        time.sleep(0.02)
    server.stop(signal.SIGKILL)
    bundle = ServedBundle.read(made.bundles[SKIN])
    left = len(Sidecar(path, model_key(bundle)).read().image_ids)
    server.start()
    done = server.ask("POST", f"/scoring/{SKIN}", params={"run_sync": "true"}, json={}).json()
    assert 1 <= left <= done["total"]
    assert done["skipped"] == left
    assert done["skipped"] + done["scored"] + done["failed"] == done["total"]
    server.stop()
