"""What goes wrong because of data, said once and completely.

Every error answers four questions: what was expected, what came, where, and what to do. Readers collect
all problems of a file before they raise, so that one run shows everything there is to repair.
"""

from collections.abc import Iterable, Sequence


class MonaiFairError(ValueError):
    """Base of every error this package raises because of data, files or options."""


class ManifestError(MonaiFairError):
    """A manifest breaks its contract."""


class RecipeError(MonaiFairError):
    """A recipe cannot be read, or does not fit the dataset's files."""


class SplitError(MonaiFairError):
    """A split cannot be made, or lets one subject stand in two parts."""


class PredictionsError(MonaiFairError):
    """A table of predictions breaks its contract."""


class ArtifactError(MonaiFairError):
    """A file written by this package is missing, damaged, or belongs to other inputs."""


class ImageFileError(MonaiFairError):
    """One or more image files cannot be read."""


class GeometryError(MonaiFairError):
    """A volume, grid or displacement field cannot be used, or does not fit another."""


class RegistrationError(MonaiFairError):
    """A cohort or a subject cannot be registered."""


class LabelError(MonaiFairError):
    """A bundle cannot be served, or a request of an annotator cannot be answered."""


def raise_problems(
    error: type[MonaiFairError], source: object, problems: Sequence[str] | Iterable[str], *, limit: int = 50
) -> None:
    """Raise ``error`` with all ``problems`` of ``source`` in one message; return when there are none.

    Args:
        error: the class to raise.
        source: the file the problems are in; it opens the message.
        problems: one sentence each, already saying expected, got, where and what to do.
        limit: problems printed; the rest is counted.

    Raises:
        MonaiFairError: of type ``error``, if there is at least one problem.
    """
    found = list(problems)
    if not found:
        return
    if len(found) == 1:
        raise error(f"{source}: {found[0]}")
    shown = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(found[:limit], start=1))
    rest = f"\n  ... and {len(found) - limit} more" if len(found) > limit else ""
    raise error(f"{source}: {len(found)} problems\n{shown}{rest}")


def root_cause(error: BaseException) -> str:
    """Return class and message of what went wrong: MONAI wraps errors of a bundle's components in its own.

    The chain is followed to the first error of this package, which names file and remedy where the library's error
    behind it does not, or to its end.
    """
    while error.__cause__ is not None and not isinstance(error, MonaiFairError):
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
