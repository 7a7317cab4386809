"""The options of a server: read once, all faults in one message."""

from pathlib import Path

import pytest

from monai_fair.errors import LabelError
from monai_fair.label.app_conf import AppConf


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("served/skin", "served/brain", "other/skin", "studies"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_options_become_paths_and_names(place: Path) -> None:
    (place / "people.tsv").write_text("participant_id\n")
    conf = {"models": "served/skin, served/brain/", "demographics": "people.tsv", "attributes": "sex,age_group",
            "preload": "True", "server_mode": "true"}  # fmt: skip
    parsed = AppConf.parse(conf, "studies")
    assert parsed.models == (place / "served" / "skin", place / "served" / "brain")
    assert parsed.demographics == place / "people.tsv"
    assert parsed.attributes == ("sex", "age_group")
    assert parsed.preload


@pytest.mark.parametrize(
    ("files", "found"),
    [([], None), (["participants.tsv"], "participants.tsv"), (["manifest.csv", "participants.tsv"], "manifest.csv")],
)
def test_demographics_beside_the_images_are_taken(place: Path, files: list[str], found: str | None) -> None:
    for name in files:
        (place / "studies" / name).write_text("")
    parsed = AppConf.parse({"models": "served/skin"}, "studies")
    assert parsed == AppConf((place / "served" / "skin",), place / "studies" / found if found else None)


def test_a_dicom_server_has_no_table_beside_it(place: Path) -> None:
    assert AppConf.parse({"models": "served/skin"}, "http://127.0.0.1:8042/dicom-web").demographics is None


def test_all_faults_are_in_one_message(place: Path) -> None:
    conf = {"models": "served/skin,other/skin,none", "demographics": "none.csv", "preload": "yes", "model": "x",
            "zoo_source": "local"}  # fmt: skip
    with pytest.raises(LabelError) as caught:
        AppConf.parse(conf, place / "studies")
    known = "models, demographics, attributes, preload, server_mode"
    assert str(caught.value).splitlines() == [
        "--conf: 6 problems",
        f"  1. model: expected one of {known}, got another name; correct it or leave it out",
        f"  2. zoo_source: expected one of {known}, got another name; correct it or leave it out",
        f"  3. models: expected the folder {place / 'none'}, found none; correct the path",
        "  4. models: expected names that differ, got 'skin' more than once; rename a folder",
        f"  5. demographics: expected the file {place / 'none.csv'}, found none; correct the path",
        "  6. preload: expected true or false, got 'yes'; spell it so",
    ]


@pytest.mark.parametrize("conf", [{}, {"models": ""}, {"models": " , "}])
def test_a_server_needs_a_bundle(place: Path, conf: dict[str, str]) -> None:
    with pytest.raises(LabelError, match=r"^--conf: models: expected folders of bundles with commas between, got"):
        AppConf.parse(conf, place)
