"""X1: nothing in the package unpickles, evaluates text, or builds objects from YAML."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import monai_fair

PACKAGE = Path(monai_fair.__file__).parent
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load",
                   "yaml.full_load", "pd.read_pickle", "pandas.read_pickle", "joblib.load"}  # fmt: skip
# keyword -> the only value it may have
FIXED_KEYWORDS = {"weights_only": True, "allow_pickle": False, "shell": False}
# call -> the keyword it must be given
NEEDED_KEYWORDS = {"torch.load": "weights_only", "np.load": "allow_pickle", "numpy.load": "allow_pickle"}


def findings(source: str) -> Iterator[str]:
    """Say what is forbidden in Python source, by line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.split(".")[0] in FORBIDDEN_MODULES:
                    yield f"line {node.lineno}: import of {name}"
        if isinstance(node, ast.Call):
            yield from _call_findings(node)


def _call_findings(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    if called in FORBIDDEN_CALLS:
        yield f"line {node.lineno}: call of {called}"
    given = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    for name, wanted in FIXED_KEYWORDS.items():
        if name in given and not (isinstance(given[name], ast.Constant) and given[name].value is wanted):
            yield f"line {node.lineno}: {called} with {name}={ast.unparse(given[name])}"
    needed = NEEDED_KEYWORDS.get(called)
    if needed and needed not in given:
        yield f"line {node.lineno}: {called} without {needed}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_holds_nothing_forbidden(path: Path) -> None:
    assert list(findings(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n    import dill",
        "eval('1')",
        "exec(text)",
        "import yaml\nyaml.load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "pd.read_pickle(path)",
        "joblib.load(path)",
    ],
)
def test_the_scan_finds_what_is_forbidden(source: str) -> None:
    assert list(findings(source))


def test_the_scan_lets_the_safe_forms_through() -> None:
    source = "import yaml\nyaml.safe_load(text)\ntorch.load(path, weights_only=True)\nnp.load(path, allow_pickle=False)"
    assert list(findings(source)) == []
