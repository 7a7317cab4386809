"""What an error says when libraries have wrapped it, and all problems of a source in one message."""

import itertools
import zlib

import pytest

from monai_fair.errors import GeometryError, root_cause


def _chained(*errors: Exception) -> Exception:
    """Return the first error, raised from the second, which was raised from the third, and so on."""
    for outer, inner in itertools.pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ([KeyError("a")], "KeyError: 'a'"),
        ([RuntimeError("Failed to instantiate"), ValueError("size -1")], "ValueError: size -1"),
        # ours names the file; what zlib said behind it does not
        (
            [RuntimeError("Failed to evaluate"), GeometryError("x.nii.gz: damaged"), zlib.error("incorrect check")],
            "GeometryError: x.nii.gz: damaged",
        ),
    ],
)
def test_the_cause_that_says_most(errors: list[Exception], words: str) -> None:
    assert root_cause(_chained(*errors)) == words
