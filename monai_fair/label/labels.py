"""Labels that annotators submit for whole images, and the manifest that a training reads them from.

A label is a small JSON file, saved through the API: ``{"label": 1}`` with the index of the class, or
``{"label": "disease"}`` with its name. Where classifiers of other classes are on the same server, an index alone could
be any of theirs: then it needs ``{"label": 1, "model": "skin_classification"}``, or the name. Other keys are kept by
the server and mean nothing here.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data import balancing_weights, split_by_subject
from monai_fair.data.manifest import RESERVED
from monai_fair.errors import LabelError, raise_problems
from monai_fair.metrics import group_by

LABEL_SUFFIX = ".json"
LEAST = 2  # subjects of every class in training and in validation: with one, an AUC is that subject's rank
_LIMIT = 1 << 16  # bytes of a label: a name is short, and a large file is something else


@dataclass(frozen=True)
class LabelledImage:
    """An image and where its label lies.

    Attributes:
        image: path under the data root.
        subject_id: who it shows; images of one subject never stand in two parts.
        label: the JSON file.
        attributes: what is known of the subject; an empty text is missing.
    """

    image: str
    subject_id: str
    label: Path
    attributes: Mapping[str, str] = field(default_factory=dict)


def class_names(output: Mapping[str, Any], num_classes: int) -> tuple[str, ...]:
    """Return the name of every class, by index.

    Args:
        output: the network's output in ``metadata.json``, with ``channel_def``, channel to name. A single channel is
            the probability of class 1; the class without it has its name in ``classes``, where ``pack`` was told it,
            or is called ``no NAME``.
        num_classes: number of classes.

    Raises:
        LabelError: if the names are not those of so many classes.
    """
    channel_def = output.get("classes") or output.get("channel_def") or {}
    named = [channel_def.get(str(channel)) for channel in range(len(channel_def))]
    if num_classes == 2 and len(named) == 1 and named[0]:
        return f"no {named[0]}", named[0]
    names = tuple(name for name in named if name)
    if len(names) != num_classes or len({name.lower() for name in names}) < num_classes:
        raise LabelError(
            f"metadata.json: expected the names of {num_classes} classes in channel_def or classes, got "
            f"{dict(channel_def)}; name each channel, from 0 on"
        )
    return names


def read_label(
    path: str | Path, names: Sequence[str], *, model: str = "", others: Collection[Sequence[str]] = ()
) -> int | None:
    """Return the class of a label, or ``None`` where it is a label of another model.

    Args:
        path: the file.
        names: of the classes, by index; upper and lower case are one.
        model: whose label it is to be; one with another name in its key ``model`` is none of it.
        others: names of the classes of the server's other classifiers. One of theirs that is none of ``names`` is a
            label of another model.

    Raises:
        LabelError: if it cannot be read, names no class, or is an index that says of no model whose.
    """
    try:
        with Path(path).open("rb") as file:
            content = json.loads(file.read(_LIMIT))
    except (OSError, ValueError, RecursionError) as error:  # the last of a thousand brackets
        raise LabelError(f'{path}: expected a label such as {{"label": 1}}; {error}; submit it again') from error
    whose, given = (content.get("model"), content.get("label")) if isinstance(content, dict) else (None, None)
    if model and whose is not None and whose != model:
        return None
    foreign = [_folded(each) for each in others if _folded(each) != _folded(names)]
    if isinstance(given, str):
        (name,) = _folded([given])
        if name not in _folded(names) and any(name in each for each in foreign):
            return None
        given = _folded(names).index(name) if name in _folded(names) else given
    elif foreign and whose is None:
        raise LabelError(
            f"{path}: expected the name of a class, or the key 'model' beside an index, because models of other "
            f"classes are on this server, got {given!r} alone; submit it again"
        )
    if type(given) is not int or not 0 <= given < len(names):
        classes = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
        raise LabelError(f"{path}: expected key 'label' with one of {classes}, got {given!r}; submit it again")
    return given


def _folded(names: Sequence[str]) -> list[str]:
    return [name.strip().lower() for name in names]


def label_table(
    images: Sequence[LabelledImage],
    names: Sequence[str],
    *,
    source: str,
    model: str = "",
    others: Collection[Sequence[str]] = (),
) -> pd.DataFrame:
    """Read all labels.

    Args:
        images: in the order of rows.
        names: of the classes.
        source: what an error is about.
        model: see :func:`read_label`.
        others: see :func:`read_label`.

    Returns:
        Text, as a manifest has it: ``subject_id``, ``image``, ``label``, then every attribute, empty where missing. No
        rows of labels of other models.

    Raises:
        LabelError: with every label that cannot be read, and every attribute of an impossible name.
    """
    attributes = sorted({name for image in images for name in image.attributes})
    problems = [
        f"attribute '{name}': expected another name, a manifest needs this one; rename it"
        for name in attributes
        if name in RESERVED
    ]
    rows = []
    for image in images:
        try:
            label = read_label(image.label, names, model=model, others=others)
        except LabelError as error:
            problems.append(str(error))
            continue
        if label is None:
            continue
        known = {name: str(image.attributes.get(name, "")) for name in attributes}
        rows.append({"subject_id": image.subject_id, "image": image.image, "label": str(label), **known})
    raise_problems(LabelError, source, problems)
    return pd.DataFrame(rows, columns=["subject_id", "image", "label", *attributes])


def split_labels(
    table: pd.DataFrame,
    *,
    val_split: float,
    seed: int,
    attributes: Sequence[str] = (),
    known: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the table with the column ``split``: every subject in train or in val, of each class a share in val.

    A subject keeps the part it has once been in: a row the present model has learned from would make it look better
    in validation than it is. New ones are dealt so that with them val has its share of every class again.

    Args:
        table: of :func:`label_table`. A subject with images of several classes counts for the largest.
        val_split: share of subjects in val, between 0 and 1.
        seed: of the dealing.
        attributes: columns to balance over the parts, within a class.
        known: subject to ``train`` or ``val``, of earlier trainings.
    """
    part = {who: where for who, where in (known or {}).items() if where in ("train", "val")}
    classes = table["label"].astype(int).groupby(table["subject_id"]).max()
    for label in sorted(classes.unique()):
        own = classes.index[classes == label]
        new = [who for who in own if who not in part]
        lacking = val_split * len(own) - sum(part.get(who) == "val" for who in own)
        part |= _dealt(table[table["subject_id"].isin(new)], lacking, seed, attributes)
    return table.assign(split=table["subject_id"].map(part))


def _dealt(rows: pd.DataFrame, wanted: float, seed: int, attributes: Sequence[str]) -> dict[str, str]:
    """Put about ``wanted`` of the subjects in val."""
    subjects = rows["subject_id"].unique()
    share = wanted / len(subjects) if len(subjects) else 0.0
    if share < 1e-9 or share > 1 - 1e-9 or len(subjects) < 2:
        return dict.fromkeys(subjects, "val" if share >= 0.5 else "train")
    split = split_by_subject(rows, {"train": 1 - share, "val": share}, stratify=attributes, seed=seed)
    return dict(zip(split["subject_id"], split["split"], strict=True))


def check_enough(table: pd.DataFrame, names: Sequence[str], *, val_split: float, source: str) -> None:
    """Raise a :class:`LabelError` that says how many labels of which class are missing.

    Args:
        table: of :func:`split_labels`.
        names: of the classes.
        val_split: see there.
        source: what the error is about.
    """
    subjects = table.drop_duplicates(["subject_id", "label"])
    problems = []
    for label, name in enumerate(names):
        own = subjects[subjects["label"] == str(label)]
        train, val = (int((own["split"] == part).sum()) for part in ("train", "val"))
        if train < LEAST or val < LEAST:
            more = _more(train, val, val_split)
            problems.append(
                f"class {label} ({name}): expected at least {LEAST} labelled subjects to train on and {LEAST} to "
                f"validate on, got {train} and {val}; label about {more} more"
            )
    raise_problems(LabelError, source, problems)


def _more(train: int, val: int, val_split: float) -> int:
    """Return how many subjects of a class, dealt as in :func:`split_labels`, fill both parts."""
    for new in range(1, 10 * math.ceil(LEAST / min(val_split, 1 - val_split))):
        added = min(max(math.floor(val_split * (train + val + new)) - val, 0), new)
        if val + added >= LEAST and train + new - added >= LEAST:
            return new
    return math.ceil(LEAST / val_split)  # so many known subjects in one part that its share is far away


def group_names(table: pd.DataFrame, attributes: Sequence[str]) -> list[str]:
    """Return the joint group of every row, such as ``female & <60``; a missing value is a group of its own.

    Raises:
        LabelError: with every attribute that is not a column.
    """
    columns = [str(name) for name in table if name not in RESERVED]
    absent = [name for name in attributes if name not in columns]
    known = ", ".join(columns) or "none"
    raise_problems(
        LabelError,
        "attributes",
        [f"'{name}': expected an attribute of the labelled images ({known}); correct the name" for name in absent],
    )
    if not attributes:
        return ["all"] * len(table)
    grouping = group_by(table, list(attributes), missing="group")
    return [grouping.names[code] for code in grouping.codes]


def with_weights(table: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Return the table with the column ``weight``, by which training rows are drawn.

    Drawn so, label and group are independent; see :func:`monai_fair.data.balancing_weights`. Rows of val weigh 1.

    Args:
        table: with ``label`` and ``split``.
        groups: the group of every row.
    """
    train = (table["split"] == "train").to_numpy()
    weight = pd.Series(1.0, index=table.index)
    weight[train] = balancing_weights(table["label"].to_numpy()[train], pd.Series(groups).to_numpy()[train])
    return table.assign(weight=[str(value) for value in weight.tolist()])
