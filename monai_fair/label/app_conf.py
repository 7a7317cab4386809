"""What an operator tells the app when the server starts: ``--conf NAME VALUE`` of MONAI Label, checked at once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monai_fair.data.option_values import option_names
from monai_fair.errors import LabelError, raise_problems

_OWN = ("models", "demographics", "attributes", "preload")
_OF_MONAI_LABEL = ("server_mode",)
_TABLES = ("manifest.csv", "participants.tsv")
_SWITCHES = {"true": True, "false": False}


@dataclass(frozen=True)
class AppConf:
    """The options of a server.

    Attributes:
        models: folders of bundles, absolute, in the order given; their names differ.
        demographics: table of what is known of the patients, a manifest or participants.tsv, absolute; or ``None``.
        attributes: columns of it that predictions and strategies look at; empty for all.
        preload: whether networks are loaded when the server starts, instead of at the first image.
    """

    models: tuple[Path, ...]
    demographics: Path | None = None
    attributes: tuple[str, ...] = ()
    preload: bool = False

    @classmethod
    def parse(cls, conf: Mapping[str, str], studies: str | Path) -> "AppConf":
        """Read the options.

        Args:
            conf: name to value as MONAI Label hands them over: ``models`` (folders, with commas between),
                ``demographics`` (a file; by default manifest.csv or participants.tsv in ``studies``), ``attributes``
                (names, with commas between) and ``preload`` (true or false). MONAI Label's own ``server_mode`` is left
                to it.
            studies: folder of the images, or the address of a DICOM server.

        Raises:
            LabelError: with everything that is wrong.
        """
        given = {name: str(value).strip() for name, value in conf.items()}
        models = tuple(Path(name).expanduser().resolve() for name in _listed(given, "models"))
        demographics = _demographics(given.get("demographics", ""), studies)
        preload = given.get("preload", "false").lower()
        problems = [*_unknown(given), *_model_problems(models)]
        if demographics is not None and not demographics.is_file():
            problems.append(f"demographics: expected the file {demographics}, found none; correct the path")
        if preload not in _SWITCHES:
            problems.append(f"preload: expected true or false, got '{given['preload']}'; spell it so")
        raise_problems(LabelError, "--conf", problems)
        return cls(models, demographics, tuple(_listed(given, "attributes")), _SWITCHES[preload])


def _listed(given: Mapping[str, str], name: str) -> list[str]:
    return [value for value in option_names(given.get(name, "")) if value]


def _demographics(given: str, studies: str | Path) -> Path | None:
    if given:
        return Path(given).expanduser().resolve()
    # of a DICOM server's address no such file exists
    return next((path.resolve() for name in _TABLES if (path := Path(studies) / name).is_file()), None)


def _unknown(given: Mapping[str, str]) -> list[str]:
    known = ", ".join((*_OWN, *_OF_MONAI_LABEL))
    return [
        f"{name}: expected one of {known}, got another name; correct it or leave it out"
        for name in given
        if name not in (*_OWN, *_OF_MONAI_LABEL)
    ]


def _model_problems(models: tuple[Path, ...]) -> list[str]:
    if not models:
        return [
            "models: expected folders of bundles with commas between, got none; python -m monai_fair pack makes one"
        ]
    problems = [
        f"models: expected the folder {path}, found none; correct the path" for path in models if not path.is_dir()
    ]
    twice = [name for name, count in Counter(path.name for path in models).items() if count > 1]
    problems += [f"models: expected names that differ, got '{name}' more than once; rename a folder" for name in twice]
    return problems
