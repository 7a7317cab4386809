"""Which image to label next, as MONAI Label asks: by group, by uncertainty, or by both."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.tasks.strategy import Strategy

from monai_fair.label.demographics import Demographics
from monai_fair.label.image_groups import ImageFacts
from monai_fair.label.image_states import StoredImage
from monai_fair.label.labels import LABEL_SUFFIX
from monai_fair.label.next_image import RULES, Options, Selector
from monai_fair.label.served_bundle import ServedBundle

logger = logging.getLogger(__name__)

_WORDS = {
    "least_represented": "the image of the subgroup that has the fewest labels",
    "worst_subgroup": "an image of the subgroup with the smallest lower bound in the audit",
    "uncertain": "the image whose score is nearest to the threshold of its group",
    "mix": "by several of these, weighted",
}


class Desk:
    """Who was given which image, for all strategies of a server: one request at a time.

    MONAI Label notes in the datastore what it gave out, but only after a strategy has answered; until then the desk
    remembers.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._given: dict[str, float] = {}

    def last(self, image_id: str, info: Mapping[str, Any], now: float) -> float:
        """Return when somebody was last given an image, in seconds; 0 for never.

        What is noted of an image may be from anybody: times that are none, or that lie after ``now``, do not count.
        """
        noted = info.get("strategy")
        notes = noted.values() if isinstance(noted, Mapping) else ()
        times = [note.get("ts") for note in notes if isinstance(note, Mapping)]
        past = [float(time) for time in times if isinstance(time, int | float) and time <= now]
        return max([self._given.get(image_id, 0.0), *past])

    def give(self, image_id: str, now: float) -> None:
        """Remember that an image is given out."""
        self._given[image_id] = now


class FairStrategy(Strategy):
    """One of the rules of :mod:`monai_fair.label.selection` and :mod:`monai_fair.label.group_rules`.

    The answer has ``id``, ``reason`` (a sentence), ``group`` (such as ``sex=female``, or empty) and ``model``.

    Args:
        rule: its name.
        bundles: of the server.
        demographics: what is known of the patients.
        desk: shared by the strategies of a server.
        clock: seconds.
    """

    request_keys = frozenset(Options.__dataclass_fields__)

    def __init__(
        self,
        rule: str,
        bundles: Sequence[ServedBundle],
        demographics: Demographics,
        desk: Desk,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(f"Next: {_WORDS[rule]}")
        self.rule, self.bundles, self.demographics = rule, tuple(bundles), demographics
        self.desk, self.clock = desk, clock

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, str] | None:
        """Return the image, or ``None`` where all are labelled.

        Args:
            request: see :class:`~monai_fair.label.next_image.Options`.
            datastore: the images.

        Raises:
            LabelError: if an option is wrong, or what the rule needs is not there.
        """
        options = Options.read(request)
        with self.desk.lock:
            now = self.clock()
            selector = Selector(self.bundles, studies_of(datastore))
            classes = selector.bundle(options.model).kind == "classification"
            served = partial(self.desk.last, now=now)
            images, facts = stored_images(datastore, self.demographics, classes=classes, served=served)
            found = selector.choose(self.rule, images, facts, options, now=now) if images else None
            if found is None:
                return None
            self.desk.give(found.image_id, now)
        logger.info("%s: %s: %s", self.rule, found.image_id, found.reason)
        return {"id": found.image_id, "reason": found.reason, "group": found.group}


def fair_strategies(bundles: Sequence[ServedBundle], demographics: Demographics) -> dict[str, Strategy]:
    """Return our strategies by name.

    Args:
        bundles: of the server, at least one.
        demographics: what is known of the patients.
    """
    desk = Desk()
    return {rule: FairStrategy(rule, bundles, demographics, desk) for rule in RULES}


def studies_of(datastore: Any) -> Path:
    """Return the folder of the images; scores lie beside them."""
    return Path(datastore._datastore_path)


def stored_images(
    datastore: Any,
    demographics: Demographics,
    *,
    classes: bool,
    served: Callable[[str, Mapping[str, Any]], float] = lambda image_id, info: 0.0,
) -> tuple[list[StoredImage], list[ImageFacts]]:
    """Return the images of a server, and what it knows of each.

    Args:
        datastore: MONAI Label's.
        demographics: what is known of the patients.
        classes: count only labels of a class, not those of another kind, such as masks.
        served: from id and info to when somebody was last given the image.
    """
    labelled = set(datastore.get_labeled_images())
    if classes:
        final = DefaultLabelTag.FINAL.value
        labelled = {name for name in labelled if datastore.get_label_uri(name, final).endswith(LABEL_SUFFIX)}
    images, facts = [], []
    for image_id in datastore.list_images():
        info = datastore.get_image_info(image_id)
        if not info:  # removed meanwhile
            continue
        values = demographics.of(image_id, stored=info).values
        images.append(StoredImage(image_id, Path(info["path"]), values))
        who = demographics.subject(image_id)
        facts.append(ImageFacts(image_id, image_id in labelled, served(image_id, info), values, who))
    return images, facts
