"""The codes of a cohort: rows by subject, in memory and on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_fair.data.artifacts import read_tensors, write_tensors
from monai_fair.engines import CodeTable, read_codes
from monai_fair.errors import ArtifactError

SUBJECTS = ["sub-01", "é", "003"]


def filled() -> CodeTable:
    table = CodeTable(SUBJECTS, (3, 4))
    table.add(torch.arange(3), torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0)))
    return table


def test_a_table_starts_at_the_identity() -> None:
    table = CodeTable(SUBJECTS, (3, 4))
    assert torch.equal(table.values, torch.zeros(3, 3, 4))
    assert table.subject_ids == SUBJECTS


def test_adding_changes_the_rows_that_are_named() -> None:
    table = filled()
    before = table.values.clone()
    table.add(torch.tensor([2, 0]), torch.stack([torch.full((3, 4), 2.0), torch.full((3, 4), 5.0)]))
    assert torch.equal(table.values[1], before[1])
    torch.testing.assert_close(table.values - before, torch.tensor([5.0, 0.0, 2.0])[:, None, None].expand(3, 3, 4))


def test_alone_there_is_nothing_to_share() -> None:
    table = filled()
    before = table.values.clone()
    table.share()
    assert torch.equal(table.values, before)


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    table = filled()
    path = table.save(tmp_path / "codes.safetensors", network_fingerprint="abc")
    subjects, codes = read_codes(path)
    assert subjects == SUBJECTS
    assert torch.equal(codes, table.values)
    tensors, header = read_tensors(path)
    assert tensors["codes"].shape == (3, 12)
    np.testing.assert_array_equal(tensors["codes"][1], table.values[1].flatten().numpy())
    assert header["network_fingerprint"] == "abc"
    assert json.loads(header["subject_ids"]) == SUBJECTS


def test_a_table_comes_back_from_its_state() -> None:
    table, other = filled(), CodeTable(SUBJECTS, (3, 4))
    state = table.state_dict()
    other.load_state_dict(state)
    assert torch.equal(other.values, table.values)
    other.add(torch.tensor([0]), torch.ones(1, 3, 4))
    assert torch.equal(state["values"], table.values)  # a copy


@pytest.mark.parametrize("subjects", [SUBJECTS[::-1], SUBJECTS[:2], [*SUBJECTS, "x"]])
def test_a_state_of_other_subjects_is_refused(subjects: list[str]) -> None:
    with pytest.raises(ArtifactError) as caught:
        CodeTable(subjects, (3, 4)).load_state_dict(filled().state_dict())
    assert str(caught.value) == "codes: expected the subjects of this cohort, in its order, got others"


def test_a_state_of_other_codes_is_refused() -> None:
    with pytest.raises(ArtifactError) as caught:
        CodeTable(SUBJECTS, (3, 5)).load_state_dict(filled().state_dict())
    assert str(caught.value) == "codes: expected shape (3, 5), got (3, 4); delete the state to start anew"


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "x.safetensors", {"b": np.zeros(3), "a": np.zeros(2)})
    with pytest.raises(ArtifactError) as caught:
        read_codes(path)
    assert str(caught.value) == f"{path}: expected a table of codes, got tensors ['a', 'b']; give codes.safetensors"


def test_codes_without_their_shape(tmp_path: Path) -> None:
    header = {"kind": "codes", "subject_ids": "[]"}
    path = write_tensors(tmp_path / "x.safetensors", {"codes": np.zeros((2, 3), dtype=np.float32)}, header)
    with pytest.raises(ArtifactError, match=r"expected a table of codes, got tensors \['codes'\]"):
        read_codes(path)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = filled().save(tmp_path / "codes.safetensors")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ArtifactError, match=f"^{path}: expected a readable safetensors file; "):
        read_codes(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"^{tmp_path}/none: expected a readable safetensors file; "):
        read_codes(tmp_path / "none")
