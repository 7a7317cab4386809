"""What a server refuses: other machines, pages of other sites, paths in requests, bundles that do not fit."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

MODEL = "fair_image_classification"


def refused(answer: Any, status: int = 400) -> str:
    """What the server says, as JSON."""
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


def test_it_does_not_listen_everywhere_unless_told(
    serve: Callable[..., Any], made: Any, copied: Callable[[], Path]
) -> None:
    said = serve([made.bundles[MODEL]], copied(), host="").fail()  # MONAI Label's own default, 0.0.0.0
    assert "--host: expected an address of this machine alone, got 0.0.0.0" in said
    assert "--conf public true" in said
    server = serve([made.bundles[MODEL]], copied(), host="0.0.0.0", public="true").start()
    assert server.ask("GET", "/info/", headers={"Host": "station.example"}).ok
    assert "origin" in refused(server.ask("GET", "/info/", headers={"Origin": "http://evil.example"}), 403)
    server.stop()


def test_it_listens_on_this_machine_alone(server: Any) -> None:
    sockets = psutil.Process(server.process.pid).net_connections(kind="inet")
    assert {found.laddr for found in sockets if found.status == psutil.CONN_LISTEN} == {("127.0.0.1", server.port)}


def test_it_asks_nothing_of_the_network(server: Any) -> None:
    server.infer(MODEL, "ISIC_0000001")
    assert "OFFLINE" not in server.said()
    assert "Uvicorn running on http://127.0.0.1" in server.said()


def test_pages_of_other_sites_are_refused(server: Any) -> None:
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{server.port + 1}"):
        answer = server.ask("POST", f"/infer/{MODEL}", params={"image": "ISIC_0000001"}, headers={"Origin": origin})
        assert "expected a page of this server" in refused(answer, 403)
        assert "access-control-allow-origin" not in answer.headers
    assert "ask the server by that name" in refused(
        server.ask("GET", "/info/", headers={"Host": f"evil.example:{server.port}"}), 403
    )
    assert server.ask("GET", "/info/", headers={"Origin": server.url}).ok


@pytest.mark.parametrize("image", ["/etc/passwd", "../manifest", "..", ".", "a/b", "a\\b", "", "x" * 300, "a\0b"])
def test_an_image_is_an_id(server: Any, image: str) -> None:
    said = refused(server.ask("POST", f"/infer/{MODEL}", params={"image": image}))
    assert "path is never taken" in said or "expected an image's id" in said
    assert server.ask("GET", "/datastore/image", params={"image": image}).status_code == 404


def test_a_file_beside_the_studies_is_no_image(server: Any) -> None:
    """MONAI Label takes an id for a path where such a file is in the folder it was started in."""
    (server.folder / "a_file").write_text("x")
    assert "expected the id" in refused(server.ask("POST", f"/infer/{MODEL}", params={"image": "a_file"}), 404)


@pytest.mark.parametrize(
    "options",
    [
        {"image": "/etc/passwd"},
        {"lent": True, "image": "/etc/passwd"},
        {"session": {"image": "/etc/passwd"}},
        {"model_filename": "../../x.pt"},
        {"bundle_path": "/tmp"},
        {"known": {}},
        {"label_tag": "../x"},
        {"label_tag": ".."},
        {"label_tag": "final"},
        {"client_id": "$import os"},
        {"result_extension": "/../../x.nii"},
        {"logging": "SHOUT"},
        {"device": "cuda:0; rm"},
        {"attributes": {"subject_id": "x"}},
        {"attributes": {"sex": {"a": 1}}},
        {"attributes": "female"},
    ],
    ids=str,
)
def test_options_are_those_of_the_model(server: Any, options: dict[str, Any]) -> None:
    answer = server.ask(
        "POST", f"/infer/{MODEL}", params={"image": "ISIC_0000001"}, data={"params": json.dumps(options)}
    )
    said = refused(answer)
    assert all(name in said for name in options)


def test_a_request_writes_no_program_into_a_config(
    serve: Callable[..., Any], made: Any, copied: Callable[[], Path], tmp_path: Path
) -> None:
    """MONAI Label writes options that a bundle displays into its config, and parses that; it loads the file named."""
    bundle = Path(shutil.copytree(made.bundles[MODEL], tmp_path / "other_bundle"))
    config = bundle / "configs" / "inference.yaml"
    config.write_text(config.read_text() + "\ndisplayable_configs: {sweep: 1, mark: plain}\n")
    shutil.copy(bundle / "models" / "model.pt", tmp_path / "x.pt")
    server = serve([bundle], copied()).start()
    shown = server.client().info()["models"]["other_bundle"]["config"]
    assert (shown["sweep"], shown["mark"]) == (1, "plain")
    assert "model_filename" not in shown
    touched = tmp_path / "touched"
    program = f"$open('{touched}', 'w')"
    for options in (
        {"sweep": program},
        {"mark": program},
        {"mark": "@network_def"},
        {"mark": f"%{config}::bundle_root"},
        {"sweep": {"_target_": "os.getcwd"}},
        {"sweep": [program]},
        {"model_filename": "../../x.pt"},
    ):
        for path, given in (
            ("/infer/other_bundle?image=ISIC_0000001", {"data": {"params": json.dumps(options)}}),
            ("/batch/infer/other_bundle?run_sync=true", {"json": {**options, "images": ["ISIC_0000001"]}}),
        ):
            assert all(name in refused(server.ask("POST", path, **given)) for name in options)
    assert not touched.exists()
    server.stop()


def test_text_that_is_no_json_is_refused(server: Any) -> None:
    for params in ("{", "[1]", '"x"', "1"):
        answer = server.ask("POST", f"/infer/{MODEL}", params={"image": "ISIC_0000001"}, data={"params": params})
        assert "expected" in refused(answer)


@pytest.mark.parametrize("path", ["/train/{}", "/batch/infer/{}"])
def test_a_task_takes_no_folder_from_a_request(server: Any, path: str) -> None:
    """MONAI Label puts ``bundle_path`` of a request on the path of the Python process that it starts."""
    status = path.removesuffix("{}") if "train" in path else path.removesuffix("/{}")
    before = server.ask("GET", status, params={"all": True}).text
    for options in ({"bundle_path": "/tmp"}, {"gpus": "x"}, {"no_option": 1}):
        said = refused(server.ask("POST", path.format(MODEL), json=options))
        assert all(name in said for name in options)
    assert server.ask("GET", status, params={"all": True}).text == before  # no task was started


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/infer/none?image=ISIC_0000001", "model"),
        ("/batch/infer/none", "model"),
        ("/train/none", "model"),
        ("/scoring/none", "method"),
        ("/activelearning/none", "strategy"),
    ],
)
def test_what_is_not_there_is_said_by_name(server: Any, path: str, what: str) -> None:
    said = refused(server.ask("POST", path), 404)
    assert said.startswith(f"{what}: expected one of ")
    assert said.endswith("got 'none'; correct the name")


def test_names_of_uploads_and_tags_are_no_paths(server: Any, made: Any) -> None:
    picture = (made.studies / "ISIC_0000001.jpg").read_bytes()
    before = sorted(path.name for path in server.studies.parent.rglob("*"))
    for image in ("../out", "..", "a/b"):
        answer = server.ask("PUT", "/datastore/image", params={"image": image}, files={"file": ("x.jpg", picture)})
        assert "a path is never taken" in refused(answer)
    answer = server.ask("PUT", "/datastore/image", params={"image": "program"}, files={"file": ("x.py", b"1")})
    assert "expected a file of" in refused(answer)
    for tag in ("../out", "..", "a/b"):
        label = {"label": ("x.json", b'{"label": 1}')}
        answer = server.ask("PUT", "/datastore/label", params={"image": "ISIC_0000001", "tag": tag}, files=label)
        assert "a path is never taken" in refused(answer)
        assert server.ask("GET", "/datastore/label", params={"label": "ISIC_0000001", "tag": tag}).status_code == 404
    answer = server.ask("PUT", "/datastore/label", params={"image": "nobody"}, files={"label": ("x.json", b"{}")})
    assert "nobody" in refused(answer, 404)
    assert sorted(path.name for path in server.studies.parent.rglob("*")) == before


def test_a_session_is_an_id_and_nothing_is_unpacked(server: Any, made: Any) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../outside.txt", "x")
    answer = server.ask("PUT", "/session/", params={"uncompress": True}, files={"files": ("x.zip", archive.getvalue())})
    assert "got an archive to unpack" in refused(answer)
    # two files become a folder, and one of them could be the record of a session inside it
    record = json.dumps({"name": "x", "path": "/etc", "image": "/etc/passwd", "meta": {}, "expiry": 9})
    files = [("files", ("meta.info", record.encode())), ("files", ("y.jpg", b"y"))]
    made_session = server.ask("PUT", "/session/", files=files).json()
    inside = f"{made_session['session_id']}/{Path(made_session['session_info']['image']).name}"
    for session in (inside, "../x", "..", "."):
        answer = server.ask("POST", f"/infer/{MODEL}", params={"session_id": session})
        assert "expected the id of a session" in refused(answer, 404)
    assert server.ask("GET", "/session/..%2F..").status_code == 404


def test_models_are_the_operators(server: Any, made: Any) -> None:
    model = made.bundles[MODEL] / "models" / "model.pt"
    before = model.read_bytes()
    for method in ("PUT", "DELETE"):
        answer = server.ask(method, f"/model/{MODEL}", files={"file": ("x.pt", b"x")})
        assert "whoever starts the server chooses its models" in refused(answer, 403)
    assert model.read_bytes() == before
    assert "starts the server" in refused(server.ask("POST", "/reload"), 403)
    for path in (f"/infer/wsi/{MODEL}", f"/infer/wsi_v2/{MODEL}"):
        answer = server.ask("POST", path, params={"image": "ISIC_0000001"}, json={"params": {"image": "/etc/passwd"}})
        assert "whole slides" in refused(answer)


def test_a_checkpoint_of_another_network_stops_the_start(
    serve: Callable[..., Any], made: Any, copied: Callable[[], Path], tmp_path: Path
) -> None:
    """All that is wrong at once: a mismatched model, a folder that is no bundle, an option nobody knows."""
    bundle = Path(shutil.copytree(made.bundles[MODEL], tmp_path / MODEL))
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    state["fc.weight"] = torch.zeros(3, 5)
    torch.save(state, bundle / "models" / "model.pt")
    other = tmp_path / "no_classification"
    other.mkdir()
    said = serve([bundle, other], copied()).fail()
    assert "fc.weight" in said
    assert "no_classification" in said
    assert "LabelError" in said
    said = serve([made.bundles[MODEL]], copied(), modles="x").fail()
    assert "modles: expected one of" in said


def test_a_pickled_program_is_no_checkpoint(
    serve: Callable[..., Any], made: Any, copied: Callable[[], Path], tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(made.bundles[MODEL], tmp_path / MODEL))
    torch.save({"weights": Touch(tmp_path / "touched")}, bundle / "models" / "model.pt")
    said = serve([bundle], copied()).fail()
    assert "model.pt" in said
    assert not (tmp_path / "touched").exists()


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)
