"""The app's folder: one line of code, written again the same, never over another app."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from monai_fair.errors import LabelError
from monai_fair.label.app_folder import write_label_app


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_app_is_one_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_label_app("app")
    assert folder == tmp_path / "app"
    (line,) = ast.parse((folder / "main.py").read_text()).body
    assert ast.unparse(line) == "from monai_fair.label.server.app import FairLabelApp"
    assert "--host 127.0.0.1" in (folder / "README.md").read_text()


def test_written_again_it_is_the_same_and_keeps_what_a_server_left(tmp_path: Path) -> None:
    first = contents(write_label_app(tmp_path / "app"))
    (tmp_path / "app" / "app.log").write_text("started")
    assert contents(write_label_app(tmp_path / "app")) == {**first, "app.log": "started"}


def test_another_app_is_left_alone(tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text("class MyApp: ...\n")
    with pytest.raises(LabelError, match="expected this app or none, found another; choose another --out"):
        write_label_app(tmp_path)
    assert contents(tmp_path) == {"main.py": "class MyApp: ...\n"}
    with pytest.raises(LabelError, match="expected a folder or nothing yet, found a file"):
        write_label_app(main)


def test_the_verb_ends_with_the_path_and_needs_no_server(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['monailabel'] = None; sys.argv = ['monai_fair', 'label_app'];"
        "from monai_fair.__main__ import main; main(); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == str(tmp_path / "monai_fair_label")
