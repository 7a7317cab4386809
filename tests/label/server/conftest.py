"""One server of our app for all tests that do not need one of their own; it stops with the last test."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest

collect_ignore = ["servers.py", "stock_app.py"]  # no tests, and no examples either

# of MONAI Label and what it imports; see also the mark in each file, which is of a test and not of an import
FOREIGN = (
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::SyntaxWarning",
    "ignore:unclosed:ResourceWarning",  # MONAILabelClient leaves connections and files to the collector
    "ignore:NvImgCodecPydicomReader:UserWarning",
    "ignore:parsing config_file:UserWarning",  # MONAI says of every config that it is a program; these are our own
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for each in FOREIGN:
                item.add_marker(pytest.mark.filterwarnings(each))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.stem}_loaded", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def servers() -> Any:
    """The functions of ``servers.py``: tests are no package, so they cannot import it."""
    return load(Path(__file__).with_name("servers.py"))


@pytest.fixture(scope="session")
def stock_servers() -> Any:
    """The functions of ``stock_app.py``."""
    return load(Path(__file__).with_name("stock_app.py"))


@pytest.fixture(scope="module")
def brains(stock_servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A packed registration bundle, studies whose axes run another way, and what ``bundle run`` makes of them."""
    return stock_servers.register_brains(tmp_path_factory.mktemp("brains"))


@pytest.fixture(scope="session")
def made(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Cohorts, studies, and the three classification bundles; for reading only."""
    folder = tmp_path_factory.mktemp("made")
    servers.write_cohorts(folder)
    cohorts = {name: folder / ("brain" if name.startswith("brain") else "skin") for name in servers.TINY}
    bundles = {name: servers.write_bundle(name, cohorts[name], folder) for name in servers.TINY}
    return SimpleNamespace(folder=folder, studies=folder / "studies", cohorts=cohorts, bundles=bundles)


@pytest.fixture(scope="session")
def serve(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a server of our app; all of them stop at the end.

    It takes bundles' folders, studies, and options of ``--conf``; ``start`` of what it returns starts it.
    """
    running: list[Any] = []

    def make(bundles: list[Path], studies: Path, *, app: Path | None = None, host: str = "127.0.0.1",
             **conf: str) -> Any:  # fmt: skip
        folder = tmp_path_factory.mktemp("server")
        options: Mapping[str, str] = {"models": ",".join(map(str, bundles)), **conf}
        server = servers.Server(folder, app or servers.label_app(folder), studies, options, host=host)
        running.append(server)
        return server

    yield make
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def copied(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Return a function that copies the studies, for a server that writes into them."""
    return lambda: Path(shutil.copytree(made.studies, tmp_path_factory.mktemp("studies") / "studies"))


@pytest.fixture(scope="session")
def server(serve: Callable[..., Any], made: Any, copied: Callable[[], Path]) -> Any:
    """Our app with all three bundles, started."""
    return serve(list(made.bundles.values()), copied()).start()


@pytest.fixture(scope="session")
def reference(made: Any, servers: Any) -> dict[str, dict[str, float]]:
    """Of each bundle, image id to the score of ``bundle run``, with what the studies' manifest knows."""
    found = {}
    for name, bundle in made.bundles.items():
        table = pd.read_csv(made.studies / "manifest.csv", dtype=str, keep_default_na=False)
        root = made.cohorts[name]
        table = table[[(root / image).is_file() for image in table["image"]]]
        manifest = made.folder / f"{name}.csv"
        table.to_csv(manifest, index=False)
        found[name] = servers.scores(servers.infer(bundle, manifest, root, made.folder / "reference" / name))
    return found
