"""The next image to label on a server: what is stored beside its bundles and images, and one of the rules."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from monai_fair.data.artifacts import read_json
from monai_fair.data.option_values import option_names, option_pairs
from monai_fair.errors import LabelError, raise_problems
from monai_fair.label.audit_bounds import AuditBounds, read_bounds
from monai_fair.label.group_rules import least_represented, worst_subgroup
from monai_fair.label.image_groups import ImageFacts, usual_ways
from monai_fair.label.image_states import StoredImage, model_key, told_attributes
from monai_fair.label.image_table import ImageTable, build_table
from monai_fair.label.selection import Choice, Order, Rule, choose, mix, uncertain
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.sidecar import NONE, ImageScores, Sidecar, sidecar_path
from monai_fair.label.training_counts import training_rows
from monai_fair.metrics import Thresholds, read_thresholds
from monai_fair.subgroups.subgroup_model import SUBGROUP_MODEL

RULES = ("least_represented", "worst_subgroup", "uncertain", "mix")
DEFAULT_MIX = "uncertain=0.5,least_represented=0.5"


@dataclass(frozen=True)
class Options:
    """What a request for an image may say.

    Attributes:
        model: bundle whose labels are asked for; by default the first classifier, else the first bundle.
        by: ways to divide the images, such as ``sex,sex+age_group,subgroup``; by default those that thresholds or audit
            know.
        missing: ``last`` or ``group``, for images without a value.
        metric: of the audit, for ``worst_subgroup``.
        run: of the audit.
        subgroups: registration bundle whose subgroups are looked at; by default the first that has any.
        mix: rules and weights of ``mix``.
    """

    model: str = ""
    by: tuple[str, ...] = ()
    missing: str = "last"
    metric: str = "auc"
    run: str = ""
    subgroups: str = ""
    mix: str = DEFAULT_MIX

    @classmethod
    def read(cls, request: Mapping[str, object]) -> "Options":
        """Return the options of a request; what it does not say is as it is by default."""
        given = {name: request[name] for name in cls.__dataclass_fields__ if request.get(name)}
        by = tuple(option_names(given.pop("by", ())))  # type: ignore[arg-type]
        return cls(**{name: str(value).strip() for name, value in given.items()}, by=by)


@dataclass(frozen=True)
class Selector:
    """Chooses the next image from what lies beside bundles and images.

    Attributes:
        bundles: of the server, in the order given.
        studies: its folder.
    """

    bundles: Sequence[ServedBundle]
    studies: Path

    def choose(
        self, rule: str, images: Sequence[StoredImage], facts: Sequence[ImageFacts], options: Options, *, now: float
    ) -> Choice | None:
        """Return the image to label next, or ``None`` where all are labelled.

        Args:
            rule: one of :data:`RULES`.
            images: of the server.
            facts: of the same images.
            options: of the request.
            now: in seconds.

        Raises:
            LabelError: if an option is wrong, or what the rule needs is not there.
        """
        bundle = self.bundle(options.model)
        finder = self._finder(options.subgroups)
        scores = self._scores(bundle, images)
        found = NONE if finder is None else self._scores(finder, images)
        thresholds = read_thresholds(bundle.thresholds) if bundle.thresholds else None
        training = training_rows(bundle, finder, facts)
        needs = {name for name, _ in _weights(options.mix)} if rule == "mix" else {rule}
        audit = None
        if bundle.audit and ("worst_subgroup" in needs or not options.by):
            audit = read_bounds(bundle.audit, metric=options.metric, run=options.run, preferred=bundle.name)
        by = options.by or usual_ways(facts, _named(thresholds, audit), subgroups=found, training=training)
        table = build_table(
            facts,
            by,
            scores=scores,
            subgroups=found,
            thresholds=thresholds,
            training=training,
            missing=options.missing,
            cuts=_cuts(audit),
        )
        return choose(table, self._rule(rule, options, bundle, audit), now=now)

    def bundle(self, name: str) -> ServedBundle:
        """Return the bundle of a name; for none the first classifier, else the first bundle.

        Raises:
            LabelError: if there is none of this name.
        """
        known = {bundle.name: bundle for bundle in self.bundles}
        if name and name not in known:
            raise LabelError(f"model: expected one of {', '.join(known)}, got '{name[:100]}'; correct the name")
        classifiers = [bundle for bundle in self.bundles if bundle.kind == "classification"]
        return known[name] if name else (classifiers or list(self.bundles))[0]

    def _finder(self, name: str) -> ServedBundle | None:
        """Return the bundle whose subgroups are looked at."""
        known = {bundle.name: bundle for bundle in finders(self.bundles)}
        if name and name not in known:
            raise LabelError(
                f"subgroups: expected a registration bundle that has some ({', '.join(known) or 'there is none'}), "
                f"got '{name[:100]}'; correct the name"
            )
        return known[name] if name else next(iter(known.values()), None)

    def _scores(self, bundle: ServedBundle, images: Sequence[StoredImage]) -> ImageScores:
        told = told_attributes_of(bundle)
        made = {image.image_id: image.fingerprint(told) for image in images}
        return Sidecar(sidecar_path(self.studies, bundle.name), model_key(bundle)).current(made, embeddings=False)

    def _rule(self, name: str, options: Options, bundle: ServedBundle, audit: AuditBounds | None) -> Rule:
        if name == "mix":
            parts = {each: (self._rule(each, options, bundle, audit), weight) for each, weight in _weights(options.mix)}
            return partial(_mixed, parts=parts)
        if name == "worst_subgroup":
            if audit is None:
                raise LabelError(
                    f"worst_subgroup: expected an audit of {bundle.name} (models/metrics.json), found none; audit the "
                    "model and pack it with --audit, or ask another strategy"
                )
            return partial(worst_subgroup, audit=audit)
        simple: dict[str, Callable[[ImageTable], Order]] = {
            "least_represented": least_represented,
            "uncertain": uncertain,
        }
        return simple[name]


def finders(bundles: Sequence[ServedBundle]) -> list[ServedBundle]:
    """Return the registration bundles whose subgroups can be assigned to new images."""
    return [
        bundle
        for bundle in bundles
        if bundle.kind == "registration" and bundle.subgroups is not None and _claims(bundle.subgroups)
    ]


def _claims(folder: Path) -> bool:
    """Say whether something is claimed there, and what assigns it is stored."""
    return bool(read_json(folder / "discovery.json", "discovery")["claimed"]) and (folder / SUBGROUP_MODEL).is_file()


def told_attributes_of(bundle: ServedBundle) -> tuple[str, ...]:
    """Return :func:`~monai_fair.label.image_states.told_attributes`, read once as long as the model is the same."""
    return _told(bundle, model_key(bundle))


@lru_cache(maxsize=64)
def _told(bundle: ServedBundle, key: str) -> tuple[str, ...]:
    if bundle.kind == "registration" and bundle not in finders([bundle]):
        return ()
    return told_attributes(bundle)


def _named(thresholds: Thresholds | None, audit: AuditBounds | None) -> list[str]:
    single = [way for way in audit.groups if "+" not in way] if audit else []
    return [*(thresholds.attributes if thresholds else ()), *single]


def _cuts(audit: AuditBounds | None) -> dict[str, list[str]]:
    """Return the groups of attributes that the audit divided by a rule."""
    return {way: list(groups) for way, groups in (audit.groups if audit else {}).items() if ":" in way}


def _mixed(table: ImageTable, parts: Mapping[str, tuple[Rule, float]]) -> Order:
    return mix(table, parts)


def _weights(text: str) -> list[tuple[str, float]]:
    """Return rules and weights of ``mix``."""
    found, problems = [], []
    for name, value in option_pairs("mix", text).items():
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if name not in RULES[:-1] or not weight >= 0:
            known = ", ".join(f"{each}=0.5" for each in RULES[:-1])
            problems.append(f"mix: expected {known} with weights from 0, got '{name}={value}'; correct it")
        found.append((name, weight))
    raise_problems(LabelError, "strategy", problems)
    return found
