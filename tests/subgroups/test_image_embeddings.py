"""From images to a table of embeddings, with open_clip itself and a tiny model of random weights."""

import json
import shutil
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from PIL import Image

from monai_fair import __main__
from monai_fair.data import read_volume, sha256, write_volume
from monai_fair.data.artifacts import read_json
from monai_fair.errors import ImageFileError, ManifestError, MonaiFairError
from monai_fair.geometry import Grid
from monai_fair.subgroups import discover_files, embedding_rows, image_embeddings
from monai_fair.subgroups.clip_encoder import ClipEncoder
from monai_fair.subgroups.image_embeddings import embed_files
from monai_fair.subgroups.image_views import volume_views

open_clip = pytest.importorskip("open_clip")
NAME = "tiny-of-the-tests"
TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1},
}
Cohort = Any  # of conftest, which tests cannot import


@dataclass(frozen=True)
class Tiny:
    """A model and images: a volume, pictures of four subjects, two of them of one."""

    root: Path
    weights: Path

    def embed(self, out: Path, **options: Any) -> Path:
        """Write the table; options go first."""
        given = {"manifest": self.root / "manifest.csv", "root": self.root, "model": NAME, "weights": self.weights}
        given |= {"num_workers": 1, "progress": False, **options}
        return embed_files(given.pop("manifest"), out, **given)


def write_images(root: Path) -> None:
    rng = np.random.default_rng(0)
    write_volume(root / "brain.nii.gz", rng.random((12, 14, 10)).astype(np.float32), Grid.isotropic((12, 14, 10), 2.0))
    for name in "abcd":
        Image.fromarray(rng.integers(0, 256, (40, 32, 3), dtype=np.uint8)).save(root / f"{name}.png")
    images = {"b.png": "s2", "brain.nii.gz": "s1", "a.png": "007", "c.png": "s2", "d.png": "s3"}
    table = pd.DataFrame({"subject_id": images.values(), "image": images.keys()})
    table.to_csv(root / "manifest.csv", index=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """To be read only."""
    root = tmp_path_factory.mktemp("tiny")
    (root / f"{NAME}.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(root / f"{NAME}.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model(NAME).state_dict(), root / "tiny.pt")
    write_images(root)
    return Tiny(root, root / "tiny.pt")


@pytest.fixture
def own(tiny: Tiny, tmp_path: Path) -> Tiny:
    """Images that a test may change."""
    write_images(tmp_path)
    return Tiny(tmp_path, tiny.weights)


def expected(tiny: Tiny, views: list[Image.Image]) -> npt.NDArray[np.float32]:
    """What open_clip's whole model says of an image, view by view."""
    model, _, preprocess = open_clip.create_model_and_transforms(NAME, pretrained=str(tiny.weights))
    with torch.no_grad():
        features = [model.eval().encode_image(preprocess(view)[None])[0].numpy() for view in views]
    return np.mean([feature / np.linalg.norm(feature) for feature in features], axis=0)


def test_rows_are_means_of_features_of_length_one(tiny: Tiny, tmp_path: Path) -> None:
    table = pd.read_csv(tiny.embed(tmp_path / "embeddings.csv"), dtype={"subject_id": str})
    assert table.columns.tolist() == ["subject_id", *(f"e{place}" for place in range(8))]
    assert table["subject_id"].tolist() == ["s2", "s1", "007", "s3"]  # by their first row
    values = table.iloc[:, 1:].to_numpy()
    pictures = {name: expected(tiny, [Image.open(tiny.root / f"{name}.png")]) for name in "abcd"}
    volume = read_volume(tiny.root / "brain.nii.gz")
    slices = [Image.fromarray(np.stack([view] * 3, axis=-1)) for view in volume_views(volume)]
    np.testing.assert_allclose(values[0], (pictures["b"] + pictures["c"]) / 2, atol=1e-6)
    np.testing.assert_allclose(values[1], expected(tiny, slices), atol=1e-6)
    np.testing.assert_allclose(values[2:], [pictures["a"], pictures["d"]], atol=1e-6)
    assert np.ptp(values, axis=0).max() > 0.01
    np.testing.assert_array_equal(embedding_rows(tmp_path / "embeddings.csv").values, values)


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 1), (2, 3), (5, 2)])
def test_the_batch_size_changes_nothing(tiny: Tiny, tmp_path: Path, batch_size: int, num_workers: int) -> None:
    one = embedding_rows(tiny.embed(tmp_path / "one.csv"))
    other = embedding_rows(tiny.embed(tmp_path / "other.csv", batch_size=batch_size, num_workers=num_workers))
    assert one.subject_ids == other.subject_ids
    np.testing.assert_allclose(one.values, other.values, atol=1e-6)


def test_the_record_says_what_the_table_was_made_of(tiny: Tiny, tmp_path: Path) -> None:
    table = tiny.embed(tmp_path / "embeddings.csv", slices=2)
    record = read_json(tmp_path / "embeddings.json", "embeddings")
    assert record["settings"] == {"model": NAME, "slices": 2}
    assert record["inputs"] == {
        "manifest": {"file": "manifest.csv", "sha256": sha256(tiny.root / "manifest.csv")},
        "weights": {"file": "tiny.pt", "sha256": sha256(tiny.weights)},
    }
    assert (record["n"], record["n_images"], record["n_dimensions"]) == (4, 5, 8)
    assert (record["failed"], record["notes"], record["embeddings_sha256"]) == ([], [], sha256(table))
    assert record["preprocessing"]["image_size"] == [32, 32]
    assert record["preprocessing"]["mean"] == [0.48145466, 0.4578275, 0.40821073]
    assert record["versions"]["open_clip_torch"] == open_clip.__version__
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embeddings.csv", "embeddings.json"]


def test_images_that_fail_are_named_and_left_out(own: Tiny) -> None:
    (own.root / "a.png").unlink()
    (own.root / "c.png").write_bytes((own.root / "c.png").read_bytes()[:200])
    (own.root / "brain.nii.gz").write_bytes(b"")
    found = embedding_rows(own.embed(own.root / "out" / "embeddings.csv"))
    assert found.subject_ids == ["s2", "s3"]
    np.testing.assert_allclose(found.values[0], expected(own, [Image.open(own.root / "b.png")]), atol=1e-6)
    record = (own.root / "out" / "embeddings.json").read_text()
    assert str(own.root) not in record
    failed = json.loads(record)["failed"]
    assert [(row["subject_id"], row["image"]) for row in failed] == [
        ("s1", "brain.nii.gz"),
        ("007", "a.png"),
        ("s2", "c.png"),
    ]
    assert [row["reason"] for row in failed] == [
        "expected a NIfTI file (.nii, .nii.gz), got 0 bytes of another kind; convert it",
        "expected a NIfTI volume or a picture; [Errno 2] No such file or directory: 'a.png'",
        "expected a NIfTI volume or a picture; image file is truncated",
    ]


def test_no_error_of_a_decoder_stops_a_cohort(own: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = image_embeddings.read_views

    def breaking(path: Path, *, slices: int) -> list[Image.Image]:
        if Path(path).name == "d.png":
            raise zlib.error("invalid block type")
        return read(path, slices=slices)

    monkeypatch.setattr(image_embeddings, "read_views", breaking)
    found = embedding_rows(own.embed(tmp_path / "embeddings.csv"))
    assert found.subject_ids == ["s2", "s1", "007"]
    assert read_json(tmp_path / "embeddings.json", "embeddings")["failed"] == [
        {"subject_id": "s3", "image": "d.png", "reason": "cannot be read (error: invalid block type)"}
    ]


def test_a_cohort_without_a_readable_image_is_an_error(own: Tiny) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png", "brain.nii.gz"):
        (own.root / name).unlink()
    with pytest.raises(ImageFileError, match=r"^.*manifest\.csv: 5 problems\n  1\. b\.png: expected a NIfTI"):
        own.embed(own.root / "out" / "embeddings.csv")


def test_a_killed_run_ends_as_an_uninterrupted_one(own: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_embeddings, "_PART", 2)
    encode, batches = ClipEncoder.encode, []

    def stopping(after: int) -> Callable[..., torch.Tensor]:
        def stop(self: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
            batches.append(len(images))
            if len(batches) > after:
                raise KeyboardInterrupt
            return encode(self, images)

        return stop

    out = tmp_path / "killed.csv"
    for stop, slices in ((1, 1), (3, 3)):
        monkeypatch.setattr(ClipEncoder, "encode", stopping(stop))
        with pytest.raises(KeyboardInterrupt):
            own.embed(out, batch_size=2, slices=slices)
    assert not out.exists()
    assert batches == [4, 2, 10, 2]  # a part of other settings is not taken
    monkeypatch.setattr(ClipEncoder, "encode", stopping(9))
    own.embed(out, batch_size=2)
    assert batches[4:] == [2, 1]  # the first part was kept
    whole = own.embed(tmp_path / "whole.csv", batch_size=2)
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.parts"))


def test_a_finished_table_is_left_as_it_is(own: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = own.embed(tmp_path / "embeddings.csv")
    before = out.stat().st_mtime_ns
    monkeypatch.setitem(sys.modules, "open_clip", None)
    own.embed(out)
    assert out.stat().st_mtime_ns == before
    with pytest.raises(MonaiFairError) as caught:
        own.embed(out, slices=1)
    assert str(caught.value) == "open_clip: expected the package, found none; pip install 'monai-fair[clip]'"


def test_changed_images_are_encoded_again(own: Tiny, tiny: Tiny, tmp_path: Path) -> None:
    out = own.embed(tmp_path / "embeddings.csv")
    before = embedding_rows(out).values
    shutil.copy(own.root / "a.png", own.root / "d.png")
    after = embedding_rows(own.embed(out)).values  # the rows are s2, s1, 007 (a.png) and s3 (d.png)
    np.testing.assert_allclose(after[3], after[2], atol=1e-6)
    np.testing.assert_allclose(after[:3], before[:3], atol=1e-6)
    # the same manifest over the images of another folder
    np.testing.assert_allclose(embedding_rows(own.embed(out, root=tiny.root)).values, before, atol=1e-6)


def test_options_are_checked_at_once(own: Tiny) -> None:
    with pytest.raises(MonaiFairError) as caught:
        own.embed(own.root / "out.tsv", slices=0, batch_size="x")
    assert str(caught.value) == (
        "embed: 3 problems\n"
        "  1. --slices: expected a whole number from 1, got 0; correct it\n"
        "  2. --batch_size: expected a whole number from 1, got 'x'; correct it\n"
        f"  3. --out: expected the name of a .csv file, got '{own.root / 'out.tsv'}'; rename it"
    )
    before = (own.root / "manifest.csv").read_bytes()
    with pytest.raises(MonaiFairError, match="expected another file than the manifest"):
        own.embed(own.root / "manifest.csv")
    assert (own.root / "manifest.csv").read_bytes() == before
    with pytest.raises(ManifestError, match="expected a CSV file, found none"):
        own.embed(own.root / "out.csv", manifest=own.root / "none.csv")


def test_discover_takes_the_table_of_the_verb(
    registered_cohort: Cohort, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    command = ["embed", registered_cohort.manifest, "--root", registered_cohort.root, "--out", tmp_path / "e.csv"]
    command += ["--model", NAME, "--weights", tiny.weights, "--slices", 1, "--num_workers", 2]
    monkeypatch.setattr(sys, "argv", ["monai_fair", *map(str, command)])
    __main__.main()
    assert capsys.readouterr().out.splitlines() == [
        "80 subjects, 80 images, 8 numbers each; 0 images failed",
        f"record: {tmp_path / 'e.json'}",
        f"{tmp_path / 'e.csv'}",
    ]
    options = registered_cohort.options(tmp_path / "found")
    discover_files(**options, representations=["embeddings"], methods=["mixture"], embeddings=tmp_path / "e.csv")
    record = read_json(tmp_path / "found" / "discovery.json", "discovery")
    assert (record["n"], [row["representation"] for row in record["candidates"]]) == (78, ["embeddings"])
    assert record["inputs"]["e.csv"] == sha256(tmp_path / "e.csv")
