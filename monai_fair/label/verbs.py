"""The verbs ``pack`` and ``label_app`` of the command line; neither needs MONAI Label."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from monai_fair.data.option_values import option_names, option_pairs
from monai_fair.errors import MonaiFairError


def pack(
    bundle: str,
    run: str,
    out: str,
    configs: str | Sequence[str] = "",
    train_configs: str | Sequence[str] | None = None,
    overrides: str | Sequence[str] | dict[str, Any] = "",
    thresholds: str = "",
    audit: str = "",
    manifest: str = "",
    subgroups: str = "",
    template: str = "",
    labels: str | Sequence[str] = "",
) -> str:
    """Write a folder of a trained bundle that MONAI Label can serve; ends with its path.

    Args:
        bundle: the bundle's folder, such as bundles/fair_image_classification.
        run: output_dir of its training, with model.pt and model.json.
        out: folder to write, which must be new. Its name is the model's name for annotators; that of a classifier
            contains "classification".
        configs: overlays of the training, such as small.yaml: files of the bundle's configs, or paths.
        train_configs: overlays of train.yaml; by default the same.
        overrides: options of the training, such as "{'network_def#layers': [1,1,1,1]}" or width=64,depth=3. Those that
            model.json records (image_size, num_classes, ...) are set without being told.
        thresholds: thresholds.json of the verb thresholds, for decisions by group.
        audit: metrics.json of the verb audit, for the group that is served worst.
        manifest: the manifest of the training, for how often groups are in it.
        subgroups: folder of the verb discover.
        template: data root with the template of a registration.
        labels: names of the classes, such as benign,malignant.
    """
    from monai_fair.label.packing import pack_bundle

    packed = pack_bundle(
        bundle,
        run,
        out,
        configs=_names(configs),
        train_configs=None if train_configs is None else _names(train_configs),
        overrides=_values(overrides),
        thresholds=thresholds or None,
        audit=audit or None,
        manifest=manifest or None,
        subgroups=subgroups or None,
        template=template or None,
        labels=_names(labels),
    )
    beside = {"thresholds": packed.thresholds, "audit": packed.audit, "manifest": packed.manifest}
    beside["subgroups"] = packed.subgroups
    unchecked = "none (no model.json lay beside the model: whether the config has the training's settings is not known)"
    lines = [
        f"{packed.name}: {packed.kind}",
        f"settings of the training: {'yes' if packed.settings else unchecked}",
        *(f"{name}: {'yes' if at else 'none'}" for name, at in beside.items()),
    ]
    return "\n".join([*lines, str(out)])


def label_app(out: str = "monai_fair_label") -> str:
    """Write the folder that MONAI Label starts as our app; ends with its path, for monailabel start_server --app.

    Args:
        out: the folder; MONAI Label writes its log there.
    """
    from monai_fair.label.app_folder import write_label_app

    return str(write_label_app(out))


def _names(value: str | Sequence[str]) -> list[str]:
    return [name for name in option_names(value) if name]


def _values(overrides: str | Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return key to value; the values of ``a=1,b=text`` are read as a config's are."""
    if isinstance(overrides, Mapping):
        return {str(key): value for key, value in overrides.items()}
    try:
        return {key: yaml.safe_load(text) for key, text in option_pairs("--overrides", overrides).items()}
    except yaml.YAMLError as error:
        raise MonaiFairError(
            f"--overrides: expected key=value with values of YAML, got '{overrides}'; {error}"
        ) from error
