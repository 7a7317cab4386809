"""OpenBHB: participants.tsv and one array per subject, as they are published, in miniature and invented."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_fair.data import build_manifest, check_images, read_manifest, write_manifest
from monai_fair.errors import RecipeError

OPENBHB_HEADER = (
    "participant_id\tstudy\tsex\tage\tsite\tdiagnosis\ttiv\tcsfv\tgmv\twmv\tmagnetic_field_strength\t"
    "acquisition_setting\tsiteXacq\tsplit"
)
OPENBHB_ROWS = (
    "100053248969\t0.0\tmale\t30.0\t12.0\tcontrol\t1500.1\t300.2\t700.3\t499.6\t3.0\t1.0\t40.0\ttrain",
    "110982206087\t0.0\tfemale\t6.47\t2.0\tcontrol\t1300.1\t300.2\t600.3\t399.6\t1.5\t1.0\t2.0\tinternal_test",
    "111358777205\t9.0\tfemale\t88.0\t59.0\tcontrol\t1300.1\t300.2\t600.3\t399.6\t3.0\t2.0\t61.0\texternal_test",
)


@pytest.fixture
def openbhb(tmp_path: Path) -> Path:
    root = tmp_path / "OpenBHB"
    for part, row in zip(("train", "val", "val"), OPENBHB_ROWS, strict=True):
        who = row.split("\t")[0]
        folder = root / part / "derivatives" / f"sub-{who}" / "ses-1"
        folder.mkdir(parents=True)
        np.save(folder / f"sub-{who}_preproc-quasiraw_T1w.npy", np.ones((1, 4, 5, 4), dtype=np.float32))
        np.save(folder / f"sub-{who}_preproc-cat12vbm_desc-gm_T1w.npy", np.ones((1, 3, 4, 3), dtype=np.float32))
    (root / "participants.tsv").write_text("\n".join([OPENBHB_HEADER, *OPENBHB_ROWS]) + "\n")
    return root


def openbhb_image(part: str, who: str, kind: str = "quasiraw") -> str:
    return f"{part}/derivatives/sub-{who}/ses-1/sub-{who}_preproc-{kind}_T1w.npy"


def test_every_row_of_openbhb(openbhb: Path, tmp_path: Path) -> None:
    built = build_manifest("openbhb", openbhb)
    path = write_manifest(built, tmp_path / "manifest.csv")
    assert path.read_text() == (
        "subject_id,image,label,split,sex,age,age_group,site,study,field_strength_tesla\n"
        f"100053248969,{openbhb_image('train', '100053248969')},1,train,male,30.0,>=30,12,0,3.0\n"
        f"110982206087,{openbhb_image('val', '110982206087')},0,val,female,6.47,<30,2,0,1.5\n"
        f"111358777205,{openbhb_image('val', '111358777205')},0,test,female,88.0,>=30,59,9,3.0\n"
    )
    assert built.record["split"]["from"] == "column split"
    looked = check_images(read_manifest(path), openbhb, num_workers=1, progress=False)
    assert sum(looked.kinds.values()) == 3


def test_other_maps_and_a_split_of_ones_own(openbhb: Path) -> None:
    options = {"image": "*/derivatives/sub-*/ses-1/*_preproc-cat12vbm_desc-gm_T1w.npy", "split": "by_subject"}
    built = build_manifest("openbhb", openbhb, options=options, seed=1)
    assert built.table["image"].iloc[0] == openbhb_image("train", "100053248969", "cat12vbm_desc-gm")
    shares = {"train": 0.7, "val": 0.1, "test": 0.2}
    assert built.record["split"] == {
        "from": "subjects",
        "shares": shares,
        "stratify": ["label", "age_group"],
        "seed": 1,
    }


def test_an_unknown_part_or_sex_of_openbhb_is_named(openbhb: Path) -> None:
    path = openbhb / "participants.tsv"
    path.write_text("\n".join([OPENBHB_HEADER, *OPENBHB_ROWS]).replace("external_test", "private_test") + "\n")
    with pytest.raises(RecipeError, match=r"split \(column 'split'\): expected one of .* got 'private_test' in 1 rows"):
        build_manifest("openbhb", openbhb)
    path.write_text("\n".join([OPENBHB_HEADER, *OPENBHB_ROWS]).replace("\tmale", "\tM") + "\n")
    with pytest.raises(RecipeError, match=r"sex \(column 'sex'\): expected one of 'female', 'male', got 'M' in 1 rows"):
        build_manifest("openbhb", openbhb)


def test_every_absent_image_of_openbhb_is_named_with_its_subject(openbhb: Path, refusal: Callable[..., str]) -> None:
    for part, who in (("train", "100053248969"), ("val", "111358777205")):
        (openbhb / openbhb_image(part, who)).unlink()
    assert refusal("openbhb", openbhb) == (
        f"{openbhb}: 2 problems\n"
        "  1. subject '100053248969': expected one image, found none\n"
        "  2. subject '111358777205': expected one image, found none"
    )
