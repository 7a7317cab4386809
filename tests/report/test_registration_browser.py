"""X6 for the page of a registration in a real browser: it loads nothing, fits a phone, and its pictures have names."""

import importlib.util
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monai_fair.report import write_registration_report
from monai_fair.simulation import BrainCohort, simulate_brain


def neighbour(name: str) -> Any:
    """Load a test module of this folder: tests are no package, so they cannot import each other."""
    spec = importlib.util.spec_from_file_location(f"{name}_for_browser", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


machinery = neighbour("test_report_browser")
pytestmark = machinery.pytestmark


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        machinery.Browser(Path(profile)) as opened,
    ):
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with codes and residual, a failed subject with a hostile reason, and labels."""
    pages = neighbour("test_registration_page")
    options = BrainCohort(train_share=0.0, val_share=0.0)
    cohort = simulate_brain(
        tmp_path_factory.mktemp("cohort"), n=5, anatomy="phantom", shape=(28, 34, 28), cohort=options, num_workers=1
    )
    out = pages.write_outputs(tmp_path_factory.mktemp("registration"), cohort)
    settings = {"similarity": "very_long_" * 20 + pages.HOSTILE}
    return write_registration_report(out, **pages.arguments(cohort), settings=settings)


def unfold(browser: Any) -> None:
    browser.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")


def test_the_page_asks_for_nothing_and_says_nothing(browser: Any, report: Path) -> None:
    browser.open(report, 1200)
    browser.evaluate("document.body.getBoundingClientRect().height")
    asked = browser.requests()
    assert asked[0] == report.as_uri()
    assert all(address.startswith("data:image/png;base64,") for address in asked[1:])
    assert browser.said() == []
    assert browser.evaluate("document.querySelectorAll('script, iframe, object, embed, link, form').length") == 0


def test_every_picture_is_drawn(browser: Any, report: Path) -> None:
    """The policy lets pictures inside the page through, and nothing from elsewhere."""
    browser.open(report, 1200)
    drawn = "Array.from(document.images, image => image.naturalWidth > 0 && image.getBoundingClientRect().width > 20)"
    found = browser.evaluate(drawn)
    assert len(found) == 84
    assert all(found)


def test_the_policy_stops_scripts_and_pictures_from_elsewhere(browser: Any, report: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted.html"
    script = "<script>document.title = 'ran'</script><img src='http://localhost:9/x.png'>"
    planted.write_text(report.read_text(encoding="utf-8").replace("</main>", script + "</main>"), encoding="utf-8")
    browser.open(planted, 1200)
    assert browser.evaluate("document.title") != "ran"
    assert sum("Content Security Policy" in entry for entry in browser.said()) == 2


@pytest.mark.parametrize("width", [390, 768, 1200])
def test_the_page_fits_the_screen(browser: Any, report: Path, tmp_path: Path, width: int) -> None:
    folder = Path(os.environ.get("MONAI_FAIR_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    browser.open(report, width)
    unfold(browser)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("window.innerWidth") == width
    wide = "Array.from(document.querySelectorAll('table'), part => part.closest('.scroll') !== null)"
    assert all(browser.evaluate(wide))
    # a panel lies inside its column, and its picture has the sides of the brain in the world
    inside = """Array.from(document.querySelectorAll('.panel'), panel => {
        const own = panel.getBoundingClientRect(), column = panel.parentElement.getBoundingClientRect();
        const wanted = parseFloat(panel.style.aspectRatio);
        return own.left >= column.left - 1 && own.right <= column.right + 1
            && Math.abs(own.width / own.height / wanted - 1) < 0.02;
    })"""
    found = browser.evaluate(inside)
    assert len(found) == 63
    assert all(found)
    assert browser.screenshot(folder / f"registration_{width}.png").stat().st_size > 10_000


def test_planes_of_all_columns_stand_in_one_row(browser: Any, report: Path) -> None:
    browser.open(report, 1200)
    tops = browser.evaluate(
        """Array.from(document.querySelector('.kinds').children, kind =>
             Array.from(kind.querySelectorAll('.panel'), panel => Math.round(panel.getBoundingClientRect().top)))"""
    )
    assert len(tops) == 7
    assert all(own == tops[0] for own in tops)


def test_figures_have_names_and_tables_have_regions(browser: Any, report: Path) -> None:
    browser.open(report, 1200)
    tree = browser.send("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node.get("ignored")]
    images = [name for role, name in named if role in ("image", "img")]
    assert len(images) == 1 + 3 * 7
    assert len(set(images)) == len(images)
    assert all(len(name) > 40 for name in images)
    assert all(name for role, name in named if role in ("region", "table", "link"))


def test_headings_go_down_one_step_at_a_time(browser: Any, report: Path) -> None:
    browser.open(report, 1200)
    levels = browser.evaluate("Array.from(document.querySelectorAll('h1,h2,h3,h4,h5,h6'), h => +h.tagName[1])")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_page_is_printed(browser: Any, report: Path) -> None:
    browser.open(report, 1200)
    assert browser.print_pdf().startswith(b"%PDF")
