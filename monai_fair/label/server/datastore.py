"""The folder of images and labels, safe where MONAI Label's own loses writes or takes a name for a path.

Its own keeps the whole table in memory and rewrites it in place, so a process that writes undoes what another has
written meanwhile, a killed one leaves half a file, and names in a request become parts of paths.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from monai_fair.data.artifacts import atomic_path
from monai_fair.errors import LabelError
from monai_fair.label.image_files import check_files, file_ending
from monai_fair.label.labels import LABEL_SUFFIX
from monai_fair.label.requests import check_id, check_image_info, is_ending, is_id

PRIVATE = ".monai_fair"  # folder of the studies for what is no study
_STEP_NS = 1000  # what file systems tell apart


class CheckedDatastore(LocalDatastore):
    """A folder of images, shared by the server and the processes it starts.

    Every change is made on what stands in the file, under a lock over processes, and is written as a whole: whoever
    reads sees all of it or nothing. Ids and tags are names, never paths.

    Args:
        studies: the folder.
        extensions: patterns of image files, such as ``*.nii.gz``.
        auto_reload: watch the folder for files that others put there.
        read_only: take it as it is.

    Raises:
        LabelError: if its table cannot be read, or two image files have one id.
    """

    def __init__(
        self, studies: str, extensions: list[str], *, auto_reload: bool = False, read_only: bool = False
    ) -> None:
        self._mutex = threading.RLock()
        self._depth, self._read_state = 0, -1
        check_files(Path(studies), extensions)
        private = Path(studies) / PRIVATE
        private.mkdir(parents=True, exist_ok=True)
        self._changes_lock = FileLock(private / "datastore.lock", thread_local=False)
        self._model: LocalDatastoreModel | None = None
        super().__init__(studies, extensions=extensions, auto_reload=auto_reload, read_only=read_only)

    # What the base class keeps in an attribute is read anew whenever the file is another one.
    @property
    def _datastore(self) -> LocalDatastoreModel:
        with self._mutex:
            if not self._depth and self._file_state() != self._read_state:
                self._read()
            assert self._model is not None
            return self._model

    @_datastore.setter
    def _datastore(self, model: LocalDatastoreModel) -> None:
        self._model = model

    @contextmanager
    def _changes(self) -> Iterator[LocalDatastoreModel]:
        """Yield what stands in the file, for a change of it that nobody else makes meanwhile."""
        with self._mutex, self._changes_lock:
            if not self._depth:
                self._read()  # a new object: whoever goes over the former one is not disturbed
            self._depth += 1
            try:
                assert self._model is not None
                yield self._model
            finally:
                self._depth -= 1

    def _file_state(self) -> int:
        try:
            return Path(self._datastore_config_path).stat().st_mtime_ns
        except FileNotFoundError:
            return -1

    def _read(self) -> None:
        state = self._file_state()
        path = Path(self._datastore_config_path)
        if state < 0:
            return
        try:
            model = LocalDatastoreModel.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LabelError(
                f"{path}: expected MONAI Label's table of images and labels; {error}; restore it, or remove it and the "
                "files are listed anew, without what was noted of them"
            ) from error
        model.base_path = self._datastore_path
        self._model, self._read_state = model, state

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self._mutex:
            if not self._depth and self._file_state() != self._read_state:
                self._read()

    def _update_datastore_file(self, lock: bool = True) -> None:
        """Write the table; the base class calls it within our changes."""
        with self._mutex:
            assert self._model is not None
            before = self._file_state()
            with atomic_path(self._datastore_config_path) as temporary:
                temporary.write_text(self._model.model_dump_json(exclude={"base_path"}, indent=2), encoding="utf-8")
            now = self._file_state()
            if now <= before:  # two writes within a tick of the clock, of which readers would see the first alone
                now = before + _STEP_NS
                os.utime(self._datastore_config_path, ns=(now, now))
            self._read_state = self._file_state()

    def _reconcile_datastore(self) -> None:
        with self._changes():
            super()._reconcile_datastore()

    def _to_id(self, file: str) -> tuple[str, str]:
        """Return id and ending: the longest ending that is known, whatever dots the id has."""
        ending = file_ending(file, self._extensions)
        found: tuple[str, str] = (file.removesuffix(ending), ending) if ending else super()._to_id(file)
        return found

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        """Leave out files whose names are no ids; beside images, labels of whole images count among labels."""
        labels = Path(path).resolve().is_relative_to(Path(self._datastore.label_path(None)).resolve())
        found: dict[str, str] = super()._list_files(path, [*patterns, f"*{LABEL_SUFFIX}"] if labels else patterns)
        return {name: file for name, file in found.items() if is_id(name)}

    def _add_non_existing_labels(self, tag: str) -> int:
        return int(super()._add_non_existing_labels(tag)) if is_id(tag) else 0

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take in an image; one of the same id is not replaced, because its labels would be another image's."""
        name, ending = self._to_id(Path(image_filename).name)
        image_id = check_id("image", image_id or name)
        if f"*{ending}" not in self._extensions:
            raise LabelError(f"image '{image_id}': expected a file of {', '.join(self._extensions)}, got '{ending}'")
        info = {**check_image_info(image_info), "ts": int(time.time()), "name": f"{image_id}{ending}"}
        with self._changes() as model:
            if image_id in model.objects:
                raise LabelError(f"image '{image_id}': expected a new id, there is such an image; take another id")
            _copy(image_filename, Path(model.image_path()) / f"{image_id}{ending}")
            model.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=ending))
            self._update_datastore_file()
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels."""
        with self._changes() as model:
            image = _known(model, image_id)
            for tag, label in image.labels.items():
                (Path(model.label_path(tag)) / f"{image_id}{label.ext}").unlink(missing_ok=True)
            (Path(model.image_path()) / f"{image_id}{image.image.ext}").unlink(missing_ok=True)
            del model.objects[image_id]
            self._update_datastore_file()

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keep a label of an image, in place of an earlier one of its tag.

        Raises:
            LabelError: if its name is none, or a class would take the place of a mask, or a mask that of a class.
        """
        tag = check_id("label tag", label_tag)
        _, ending = self._to_id(Path(label_filename).name)
        if not is_ending(ending):
            raise LabelError(f"label of image '{image_id}': expected a file such as x.json or x.nii.gz, got '{ending}'")
        info = {**(label_info or {}), "ts": int(time.time()), "name": f"{image_id}{ending}"}
        with self._changes() as model:
            labels = _known(model, image_id).labels
            folder = Path(model.label_path(tag))
            if tag in labels and (labels[tag].ext == LABEL_SUFFIX) != (ending == LABEL_SUFFIX):
                raise LabelError(
                    f"label of image '{image_id}': expected a file such as the {labels[tag].ext} of tag '{tag}', got "
                    f"{ending}; a class does not replace a mask, nor a mask a class: take another tag, or remove the "
                    "label that is there"
                )
            _copy(label_filename, folder / f"{image_id}{ending}")
            if tag in labels and labels[tag].ext != ending:
                (folder / f"{image_id}{labels[tag].ext}").unlink(missing_ok=True)
            labels[tag] = DataModel(info=info, ext=ending)
            self._update_datastore_file()
        return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label."""
        with self._changes() as model:
            labels = _known(model, label_id).labels
            if label_tag not in labels:
                raise LabelNotFoundException(f"Label: {label_id} Tag: {label_tag} not found")
            (Path(model.label_path(label_tag)) / f"{label_id}{labels[label_tag].ext}").unlink(missing_ok=True)
            del labels[label_tag]
            self._update_datastore_file()

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Note something of an image, such as the ``attributes`` of its patient."""
        checked = check_image_info(info)
        with self._changes():
            super().update_image_info(image_id, checked)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Note something of a label."""
        with self._changes():
            super().update_label_info(label_id, label_tag, info)

    def is_image(self, image_id: Any) -> bool:
        """Say whether an image has this id."""
        return isinstance(image_id, str) and image_id in self._datastore.objects


def _known(model: LocalDatastoreModel, image_id: str) -> ImageLabelModel:
    if image_id not in model.objects:
        raise ImageNotFoundException(f"Image {image_id} not found")
    return model.objects[image_id]


def _copy(source: str, target: Path) -> None:
    with atomic_path(target) as temporary:
        copyfile(source, temporary)
