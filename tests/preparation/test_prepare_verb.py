"""``python -m monai_fair prepare``: one line at the end, one message when something is wrong, exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from monai_fair import __main__ as cli
from monai_fair.errors import ManifestError
from monai_fair.preparation import source_manifest


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monai_fair", "prepare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_cohort_is_prepared_and_its_page_is_the_last_line(
    cohort: Path, template_files: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run(
        "--manifest", cohort / "manifest.csv", "--root", cohort, "--out", out, "--masks", "masks/{subject_id}.nii.gz",
        "--template", template_files["template"], "--template_mask", template_files["template_mask"],
        "--n4", "False", "--keep_scale", "True", "--workers", 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "3 scans prepared, 1 failed"
    assert lines[1].startswith("failed: poisoned: GeometryError: ")
    assert lines[-1] == str(out / "preparation.html")
    assert (out / "preparation.html").stat().st_size < 4 * 60_000
    assert (out / "manifest.csv").is_file()


def refused(arguments: list[object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What is said on standard error where the verb ends with status 2, in this process."""
    monkeypatch.setattr(sys, "argv", ["monai_fair", "prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as raised:
        cli.main()
    assert raised.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


def test_bad_options_are_one_message_and_exit_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--root", tmp_path, "--out", tmp_path / "out", "--shape", 40, "--orientation", "RRS"]
    assert refused(arguments, capsys, monkeypatch) == (
        "MonaiFairError: prepare: 2 problems\n"
        "  1. shape: expected three whole numbers from 8 to 1024, got (40,); such as 80,96,80\n"
        "  2. orientation: expected three letters, one each of L or R, A or P, I or S, in the order of the array's "
        "axes, got 'RRS'; give one such as ASL\n"
    )


def test_a_manifest_or_a_recipe(tmp_path: Path) -> None:
    for given, words in ((("", ""), "none"), (("m.csv", "ixi"), "both")):
        with pytest.raises(ManifestError) as raised:
            source_manifest(*given, tmp_path, tmp_path / "out")
        assert str(raised.value) == f"prepare: expected one of --manifest and --recipe, got {words}; give one"
    assert source_manifest("m.csv", "", tmp_path, tmp_path / "out") == Path("m.csv")


def test_a_cohort_without_one_usable_scan_is_exit_status_2(
    template_files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.csv").write_text("subject_id,image\n1,none.nii.gz\n")
    files = [part for name, path in template_files.items() for part in (f"--{name}", path)]
    places = ["--manifest", tmp_path / "m.csv", "--root", tmp_path, "--out", tmp_path / "out"]
    told = refused([*places, "--workers", 1, *files], capsys, monkeypatch)
    assert "RegistrationError: " in told
    assert f"{tmp_path / 'none.nii.gz'}: expected a NIfTI file, found none; check the path" in told
