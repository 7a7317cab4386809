import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monai_fair.data.predictions import write_predictions
from monai_fair.report import audit_files

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; } </style><script>alert(1)</script>",
    "]]></svg><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- --><iframe src=//example.org>",
    "javascript:alert(1)",
    "$\\frac{x$ & \u202e _hidden \x0b",
]


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.names, self.attributes, self.text = set(), [], []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which subjects, groups, an attribute, the run and its folder have hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    n = 800
    label = rng.integers(0, 2, n)
    table = pd.DataFrame(
        {
            "subject_id": [f"SECRET-{i}<script>" for i in range(n)],
            "image": [f"SECRET-{i}.png" for i in range(n)],
            "split": np.where(np.arange(n) % 4 == 0, "val", "test"),
            "label": label,
            "score": np.clip(0.3 * label + 0.7 * rng.random(n), 0, 1).round(4),
            HOSTILE[2]: rng.choice(HOSTILE, n),
            "sex": rng.choice(["<b>f</b>", "m"], n),
        }
    )
    path = write_predictions(folder / "<img src=x>" / "seed_0" / "predictions.csv", table)
    named = f"{HOSTILE[3].replace('/', '')}={path}"
    return audit_files(named, attributes=[HOSTILE[2], "sex"], out=folder / "o", permutations=20, resamples=100)


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    return report.read_text(encoding="utf-8")


def test_hostile_names_stay_text(page: str) -> None:
    parsed = Tags(page)
    assert not parsed.names & {"script", "img", "iframe", "object", "embed", "link", "base", "form"}
    text = "".join(parsed.text)
    for name in HOSTILE[:2]:
        assert name in text
    assert "<script" not in page.lower()
    assert "{{ 7 * 7 }}{% raw %}" in text


def test_no_handler_and_no_address(page: str) -> None:
    for name, value in Tags(page).attributes:
        assert not name.startswith("on")
        if name in ("href", "xlink:href", "src", "srcset", "action", "data", "poster"):
            assert value.startswith("#"), (name, value)
        if name == "style":
            assert "url(http" not in value
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    # Text between tags and the names of figures may have anything in them.
    tags = re.sub(r"""aria-label="[^"]*\"""", "", re.sub(r">[^<]*<", "><", page))
    assert not re.search(r"""\b(src|href)\s*=\s*["']?\s*(https?:)?//""", tags)


def test_the_browser_is_told_to_load_nothing(page: str) -> None:
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    assert policy in page
    assert page.index(policy) < page.index("<style>")


def test_subjects_and_images_are_in_no_output(report: Path) -> None:
    for path in sorted(report.parent.iterdir()):
        assert "SECRET" not in path.read_text(encoding="utf-8"), path.name


def test_small_counts_are_not_on_the_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    n = 400
    label = rng.integers(0, 2, n)
    table = pd.DataFrame({"subject_id": [f"s{i}" for i in range(n)], "image": "x", "split": "test", "label": label})
    table["score"] = np.clip(0.3 * label + 0.7 * rng.random(n), 0, 1)
    table["race"] = np.where(np.arange(n) < 7, "rare", "other")
    path = write_predictions(tmp_path / "predictions.csv", table)
    page = audit_files(
        path.as_posix(), attributes="race", out=tmp_path / "o", permutations=20, resamples=100
    ).read_text("utf-8")
    rows = re.findall(r'<th scope="row">rare</th>(.*?)</tr>', page)
    assert len(rows) == 2
    for row in rows:
        assert re.sub(r"<[^>]*>", " ", row).split() in (
            ["&lt;10", "masked", "&lt;10", "masked"],
            ["&lt;10", "&lt;10", "masked", "masked", "masked"],
        )
    # The other group's counts would tell: 400 - 393 = 7.
    assert not re.search(r"\b393\b", re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL))
    assert not re.search(r"\b393\b", (tmp_path / "o" / "model_card.md").read_text("utf-8"))
    assert re.search(r"\b393\b", (tmp_path / "o" / "metrics.json").read_text("utf-8"))
