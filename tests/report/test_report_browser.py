"""X6 in a real browser: a page loads nothing, runs nothing, fits a phone, and names its figures."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import audit
from monai_fair.report import build_page, write_discovery_page, write_registration_report
from monai_fair.report.discovery_view import discovery_view, stage_rows
from monai_fair.simulation import BrainCohort, simulate_brain

HOSTILE = "<script>alert(1)</script>"
UNFOLD = "document.querySelectorAll('details').forEach(part => part.open = true)"
WIDTHS = [390, 768, 1200]
# figures with a name: gaps, joint groups, two runs of two attributes, a sweep, the unfolded layer of each run; of three
# subjects seven columns each, and one more; of subgroups the place, the label, and three members of each of two
FIGURES = {"report": 6 + 1 + 2, "registration": 1 + 3 * 7, "discovery": 2 + 2 * 3, "study": 6 + 2 + 2 * 3}


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, simulated: Any, neighbour: Callable[[str], Any]) -> Path:
    """A report with hostile, long and foreign names, two runs and two seeds, features of two layers, and a sweep."""

    def tables(first: int) -> list[Any]:
        found = []
        for seed in (first, first + 1):
            table = simulated(seed, gap=1.0)
            table["sex"] = table["sex"].replace({"female": HOSTILE, "male": "männlich | `x` " + "very_long_" * 9})
            found.append(check_predictions(table, "p.csv"))
        return found

    runs = {"ERM": tables(0), f"NIR {HOSTILE}": tables(10)}
    results = audit(runs, ["sex", "site"], permutations=20, resamples=100)
    features = neighbour("test_features_page")
    layers = {"embedding": (0.8, 0.7), HOSTILE + "very_long_" * 9: (0.6, 0.7)}
    results = features.with_features(results, {run: features.record(layers) for run in runs})
    results["sweep"] = {"parameter": HOSTILE + "very_long_" * 9, "runs": {run: i for i, run in enumerate(runs)}}
    path: Path = tmp_path_factory.mktemp("browser") / "report.html"
    path.write_text(build_page(results), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def registration(tmp_path_factory: pytest.TempPathFactory, neighbour: Callable[[str], Any]) -> Path:
    """A page with codes and residual, a failed subject with a hostile reason, and labels."""
    pages = neighbour("test_registration_page")
    options = BrainCohort(train_share=0.0, val_share=0.0)
    cohort = simulate_brain(
        tmp_path_factory.mktemp("cohort"), n=5, anatomy="phantom", shape=(28, 34, 28), cohort=options, num_workers=1
    )
    out = pages.write_outputs(tmp_path_factory.mktemp("registration"), cohort)
    settings = {"similarity": "very_long_" * 20 + pages.HOSTILE}
    return write_registration_report(out, **pages.arguments(cohort), settings=settings)


@pytest.fixture(scope="module")
def discovery(tmp_path_factory: pytest.TempPathFactory, neighbour: Callable[[str], Any]) -> Path:
    """A page of two subgroups with a hostile split, whose folder the next fixture reads again."""
    pages = neighbour("test_discovery_page")
    base = tmp_path_factory.mktemp("discovery")
    anatomy = pages.write_root(base / "root")
    table = pages.rows_of(pages.SIZES, pages.POSITIVES).replace({"split": {"test": HOSTILE + "very_long_" * 9}})
    folder = pages.write_folder(base / "found", anatomy, table=table)
    pages.write_registered(base / "registered", folder, anatomy)
    return write_discovery_page(folder, root=base / "root", registered=base / "registered")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, discovery: Path, results: dict[str, Any]) -> Path:
    """An audit's page with the subgroups and the times of a study."""
    base = discovery.parent.parent
    view = discovery_view(discovery.parent, root=base / "root", registered=base / "registered")
    stages = stage_rows([{"name": "registration" + "_very_long" * 9, "seconds": 41.2}])
    path: Path = tmp_path_factory.mktemp("study") / "study.html"
    path.write_text(build_page(results, discovery=view, stages=stages), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["audited", "registration", "discovery", "study"])
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def test_a_page_asks_for_nothing_and_says_nothing(browser: Any, page: Path) -> None:
    browser.open(page, 1200)
    browser.evaluate("document.body.getBoundingClientRect().height")
    asked = browser.requests()
    assert asked[0] == page.as_uri()
    assert all(address.startswith("data:image/png;base64,") for address in asked[1:])
    assert browser.said() == []
    assert browser.evaluate("document.querySelectorAll('script, iframe, object, embed, link, form').length") == 0


def test_the_policy_stops_scripts_and_pictures_from_elsewhere(browser: Any, page: Path, tmp_path: Path) -> None:
    """The test above could not fail if the browser never told: here a script is planted, and is refused and told."""
    planted = tmp_path / "planted.html"
    script = "<script>document.title = 'ran'</script><img src='http://localhost:9/x.png'>"
    planted.write_text(page.read_text(encoding="utf-8").replace("</main>", script + "</main>"), encoding="utf-8")
    browser.open(planted, 1200)
    assert browser.evaluate("document.title") != "ran"
    assert sum("Content Security Policy" in entry for entry in browser.said()) == 2


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_fits_the_screen(browser: Any, page: Path, tmp_path: Path, width: int) -> None:
    folder = Path(os.environ.get("MONAI_FAIR_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    browser.open(page, width)
    browser.evaluate(UNFOLD)  # folded tables must fit as well
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("window.innerWidth") == width
    inside = "Array.from(document.querySelectorAll('table'), part => part.closest('.scroll') !== null)"
    assert all(browser.evaluate(inside))
    assert browser.screenshot(folder / f"{page.stem}_{width}.png").stat().st_size > 10_000


def test_figures_have_names_and_tables_have_regions(browser: Any, page: Path) -> None:
    browser.open(page, 1200)
    tree = browser.send("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node.get("ignored")]
    images = [name for role, name in named if role in ("image", "img")]
    assert len(images) == len(set(images)) == FIGURES[page.stem]
    assert all(len(name) > 40 for name in images)
    assert all(name for role, name in named if role in ("region", "table", "link"))


def test_headings_go_down_one_step_at_a_time(browser: Any, page: Path) -> None:
    browser.open(page, 1200)
    levels = browser.evaluate("Array.from(document.querySelectorAll('h1,h2,h3,h4,h5,h6'), h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_text_stands_out_from_its_ground(browser: Any, page: Path) -> None:
    """Contrast as in WCAG 2: at least 4.5 for the colour of every text on the colour behind it."""
    browser.open(page, 1200)
    browser.evaluate(UNFOLD)
    pairs = browser.evaluate(
        """(() => {
          const found = new Set();
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (walker.nextNode()) {
            const own = walker.currentNode.parentElement;
            if (!walker.currentNode.textContent.trim() || own.closest('defs')) continue;
            let ground = own;
            const back = () => getComputedStyle(ground).backgroundColor;
            while (ground && back() === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
            const style = getComputedStyle(own);
            const ink = own.closest('svg') ? style.fill : style.color;
            found.add(ink + ' on ' + (ground ? back() : 'rgb(255, 255, 255)'));
          }
          return Array.from(found);
        })()"""
    )
    assert len(pairs) >= 4
    for pair in pairs:
        ink, ground = (_luminance(colour) for colour in pair.split(" on "))
        contrast = (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05)
        assert contrast >= 4.5, pair


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_page_is_printed(browser: Any, page: Path) -> None:
    browser.open(page, 1200)
    assert browser.print_pdf().startswith(b"%PDF")


def test_hostile_names_are_text(browser: Any, audited: Path) -> None:
    browser.open(audited, 1200)
    assert browser.requests() == [audited.as_uri()]
    assert browser.evaluate("document.images.length") == 0
    names = browser.evaluate("Array.from(document.querySelectorAll('th[scope=row]'), th => th.firstChild.textContent)")
    assert HOSTILE in names
    assert f"ERM and NIR {HOSTILE}" in browser.evaluate("document.querySelector('h1').textContent")


def test_figures_of_an_audit_can_be_scrolled(browser: Any, audited: Path) -> None:
    browser.open(audited, 1200)
    found = browser.evaluate("Array.from(document.querySelectorAll('svg'), part => part.closest('.scroll') !== null)")
    assert found
    assert all(found)


def test_folded_tables_are_printed(browser: Any, audited: Path) -> None:
    """In print the folded parts take up room although nobody opened them."""
    browser.open(audited, 1200)
    tall = "Array.from(document.querySelectorAll('details'), part => part.getBoundingClientRect().height > 150)"
    assert not any(browser.evaluate(tall))
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert all(browser.evaluate(tall))
    browser.send("Emulation.setEmulatedMedia", media="")


def test_every_picture_is_drawn(browser: Any, registration: Path) -> None:
    """The policy lets pictures inside the page through, and nothing from elsewhere."""
    browser.open(registration, 1200)
    drawn = "Array.from(document.images, image => image.naturalWidth > 0 && image.getBoundingClientRect().width > 20)"
    found = browser.evaluate(drawn)
    assert len(found) == 84
    assert all(found)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_panel_lies_in_its_column_with_the_sides_of_the_brain(browser: Any, registration: Path, width: int) -> None:
    browser.open(registration, width)
    browser.evaluate(UNFOLD)
    inside = """Array.from(document.querySelectorAll('.panel'), panel => {
        const own = panel.getBoundingClientRect(), column = panel.parentElement.getBoundingClientRect();
        const wanted = parseFloat(panel.style.aspectRatio);
        return own.left >= column.left - 1 && own.right <= column.right + 1
            && Math.abs(own.width / own.height / wanted - 1) < 0.02;
    })"""
    found = browser.evaluate(inside)
    assert len(found) == 63
    assert all(found)


@pytest.mark.parametrize("width", WIDTHS)
def test_pictures_of_subgroups_have_the_sides_of_the_brain(browser: Any, discovery: Path, width: int) -> None:
    browser.open(discovery, width)
    found = browser.evaluate(
        """Array.from(document.querySelectorAll('.panel'), panel => {
             const own = panel.getBoundingClientRect(), wanted = parseFloat(panel.style.aspectRatio);
             const images = Array.from(panel.querySelectorAll('img'), image => image.getBoundingClientRect().width);
             return [own.width, own.width / own.height / wanted, ...images];
           })"""
    )
    assert len(found) == 3 + 2 * 3 * 3
    for own, ratio, under, over in found:
        assert own >= 100
        assert abs(ratio - 1) < 0.02
        assert under == over == own


def test_planes_of_all_columns_stand_in_one_row(browser: Any, registration: Path) -> None:
    browser.open(registration, 1200)
    tops = browser.evaluate(
        """Array.from(document.querySelector('.kinds').children, kind =>
             Array.from(kind.querySelectorAll('.panel'), panel => Math.round(panel.getBoundingClientRect().top)))"""
    )
    assert len(tops) == 7
    assert all(own == tops[0] for own in tops)
