"""The folder that MONAI Label starts as an app: one line of Python, and how to start it."""

from pathlib import Path

from monai_fair.data.artifacts import atomic_path
from monai_fair.errors import LabelError

# a direct subclass of MONAILabelApp must be a name in main.py; a class derived from it there would not be seen
_MAIN = "from monai_fair.label.server.app import FairLabelApp  # noqa: F401\n"
_README = """# monai_fair in MONAI Label

This folder is an app of MONAI Label; all it does stands in the package monai_fair.

```sh
python -m monailabel.main start_server --app "{folder}" --studies STUDIES --host 127.0.0.1 \\
  --conf models served/skin_classification,served/brain_registration
```

STUDIES is a folder of images. Bundles for `models` are written by `python -m monai_fair pack`. The server asks nobody
for a password, so it starts only on an address of this machine, unless `--conf public true` is added.
"""


def write_label_app(out: str | Path) -> Path:
    """Write the app's folder; where it is already, the same is written again.

    Args:
        out: the folder. MONAI Label writes its log there too.

    Returns:
        The folder, absolute.

    Raises:
        LabelError: if ``out`` holds another app, or is a file.
    """
    folder = Path(out).resolve()
    if folder.exists() and not folder.is_dir():
        raise LabelError(f"{out}: expected a folder or nothing yet, found a file; choose another --out")
    main = folder / "main.py"
    if main.exists() and main.read_text(encoding="utf-8", errors="replace") != _MAIN:
        raise LabelError(f"{main}: expected this app or none, found another; choose another --out")
    for path, text in ((main, _MAIN), (folder / "README.md", _README.format(folder=folder))):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder
