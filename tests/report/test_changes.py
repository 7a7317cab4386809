from typing import Any

import pytest

from monai_fair.report.changes import fate_words

RESULTS: dict[str, Any] = {"baseline": "ERM", "settings": {"confidence": 0.95}}
HEAD = "FATE of accuracy and the gap in equalized odds, NIR against ERM:"


def record(value: float | None, low: float | None, high: float | None, reason: str | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 3, "reason": reason}


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (
            record(0.5, 0.2, 0.8),
            "0.50 (95\u00a0% interval over seeds 0.20 to 0.80; 3 shared seeds). Relative to ERM, and with both taken "
            "together, gains outweigh losses.",
        ),
        (
            record(-0.5, -1.2, 0.2),
            "−0.50 (95\u00a0% interval over seeds −1.20 to 0.20; 3 shared seeds). Relative to ERM, and with both taken "
            "together, losses outweigh gains; the interval reaches to both sides of 0.",
        ),
        (
            record(0.0, None, None, "one seed: the spread over seeds is unknown"),
            "0.00 (one seed: the spread over seeds is unknown; 3 shared seeds). Relative to ERM, and with both taken "
            "together, gains and losses are equal.",
        ),
        (record(None, None, None, "the baseline or its gap is 0"), "undefined, the baseline or its gap is 0."),
    ],
)
def test_fate_in_words(own: dict[str, Any], words: str) -> None:
    assert fate_words(RESULTS, "NIR", "equalized_odds@youden", own) == f"{HEAD} {words}"


def test_fate_of_the_auc() -> None:
    words = fate_words(RESULTS, "NIR", "auc", record(0.5, 0.2, 0.8))
    assert words.startswith("FATE of the AUC and the gap in the AUC, NIR against ERM: 0.50 ")
