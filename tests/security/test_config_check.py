"""X2, X3: a bundle is a program, so ours is read as one: without running it, against short lists of names.

The checker reads YAML only. It is no sandbox; it says whether a config stays within what our own configs need.
"""

import ast
import configparser
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ComponentLocator

BUNDLES = Path(__file__).parents[2] / "bundles"
CONFIGS = sorted(BUNDLES.glob("*/configs/*.yaml"))
LOGGING = sorted(BUNDLES.glob("*/configs/logging.conf"))

PACKAGES = ("monai.", "torch.", "ignite.", "monai_fair.")
# packages, but not what of them runs text or loads code
FORBIDDEN_TARGETS = re.compile(
    r"torch\.(load|hub|utils\.cpp_extension|jit\.load|package|compile|serialization|_)|monai\.bundle|monai\.utils\.module"
    r"|monai\.apps\.(utils|mmars)|\._|__"
)
IMPORTS = {"import torch", "import monai", "import os", "import torch.distributed as dist",
           "import ignite.distributed as idist"}  # fmt: skip
# an expression may call these, or methods of these names on a component (@name)
CALLS = {
    "dist.get_rank", "dist.init_process_group", "idist.get_world_size", "int", "list",
    "monai.data.set_track_meta", "monai.handlers.from_engine", "monai.utils.set_determinism",
    "print", "torch.cuda.is_available", "torch.cuda.set_device", "torch.device",
    "torch.nn.SyncBatchNorm.convert_sync_batchnorm",
}  # fmt: skip
METHODS = {"audit", "audit_external", "average", "check", "parameters", "record", "run", "to", "unfinished"}
VALUES = {"os.environ", "None", "True", "False"}
ATTRIBUTES = {
    "arms", "categorical", "code_shape", "combinations", "counts", "experiments", "failures", "features",
    "frequencies", "grid", "lacking", "manifests", "mask", "mask_source", "outputs", "path", "predictions", "record",
    "run", "sampler", "shape", "shard", "source", "spacing_mm", "subject_ids", "type",
}  # fmt: skip
NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Attribute, ast.Call, ast.keyword, ast.Load, ast.BinOp, ast.Add,
    ast.Mult, ast.FloorDiv, ast.Compare, ast.Eq, ast.Gt, ast.Is, ast.IfExp, ast.UnaryOp, ast.Not, ast.BoolOp, ast.Or,
    ast.List, ast.Dict, ast.Subscript,
)  # fmt: skip


def check_config(content: Any) -> list[str]:
    """Say what in the content of a config goes beyond the lists, by key."""
    return list(_check(content, ""))


def _check(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield from (f"{where}: {problem}" for problem in _target_problems(value["_target_"]))
        for key, item in value.items():
            yield from _check(item, f"{where}#{key}" if where else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _check(item, f"{where}#{index}")
    elif isinstance(value, str):
        # MONAI evaluates text that starts with $; %path takes in another file
        if value.startswith("%"):
            yield f"{where}: takes in another file, {value}"
        elif value.startswith("$"):
            yield from (f"{where}: {problem}" for problem in _expression_problems(value[1:].strip(), where))


def _target_problems(target: Any) -> list[str]:
    if not isinstance(target, str):
        return [f"a target that is no text, {target!r}"]
    # MONAI looks a bare name up in a table of its own classes and functions
    modules = ComponentLocator().get_component_module_name(target) if "." not in target else None
    if isinstance(modules, list):
        return [f"target {target} is in several modules, {', '.join(modules)}"]
    target = f"{modules}.{target}" if modules else target
    if not target.startswith(PACKAGES):
        return [f"target {target} is outside {', '.join(PACKAGES)}"]
    if FORBIDDEN_TARGETS.search(target):
        return [f"target {target} can run or load code"]
    return [] if _resolves(target) else [f"target {target} is not there"]


def _resolves(target: str) -> bool:
    """Find a dotted name without calling it: the longest importable module, then attributes."""
    parts = target.split(".")
    for count in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:count])
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            continue
        if found is None:
            continue
        item: Any = importlib.import_module(name)
        for part in parts[count:]:
            item = getattr(item, part, None)
        return inspect.isclass(item) or inspect.isfunction(item)
    return False


def _expression_problems(text: str, where: str) -> list[str]:
    if where.startswith("imports#"):
        return [] if text in IMPORTS else [f"import outside the list, {text}"]
    # a reference to another key, @train#dataset, is a name that Python does not know
    source = re.sub(r"@(\w+(?:(?:#|::)\w+)*)", lambda found: "ref_" + re.sub(r"\W+", "_", found[1]), text)
    try:
        tree = ast.parse(source, mode="eval")
    except SyntaxError as error:
        return [f"expression {text} is not Python; {error.msg}"]
    return [f"expression {text}: {problem}" for node in ast.walk(tree) for problem in _node_problems(node, tree)]


def _node_problems(node: ast.AST, tree: ast.AST) -> Iterator[str]:
    if not isinstance(node, NODES):
        yield f"{type(node).__name__} is not allowed"
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        method = isinstance(node.func, ast.Attribute) and node.func.attr in METHODS and _is_reference(node.func.value)
        if name not in CALLS and not method:
            yield f"call of {name} is not allowed"
        if any(keyword.arg is None for keyword in node.keywords):
            yield "** is not allowed in a call"
    elif isinstance(node, ast.Name | ast.Attribute) and not _is_known(node, tree):
        yield f"{ast.unparse(node)} is not allowed"


def _is_reference(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id.startswith("ref_")


def _is_known(node: ast.Name | ast.Attribute, tree: ast.AST) -> bool:
    text = ast.unparse(node)
    if _is_reference(node) or text in VALUES:
        return True
    called = {id(call.func) for call in ast.walk(tree) if isinstance(call, ast.Call)}
    if id(node) in called:
        return True  # judged as a call
    if isinstance(node, ast.Attribute) and _is_reference(node.value):
        return node.attr in ATTRIBUTES
    # the beginning of an allowed dotted name, such as torch of torch.device
    inner = {id(outer.value) for outer in ast.walk(tree) if isinstance(outer, ast.Attribute)}
    return id(node) in inner and any(name.startswith(f"{text}.") for name in CALLS | VALUES)


def check_logging(text: str) -> list[str]:
    """Say what in a logging.conf is no standard handler with literal arguments; fileConfig evaluates both."""
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    problems = []
    for section in parser.sections():
        for key, value in parser[section].items():
            if key == "class" and not re.fullmatch(r"(logging\.)?(handlers\.)?[A-Za-z]+", value):
                problems.append(f"{section}: class {value} is no name of logging or logging.handlers")
            if key in {"args", "kwargs"} and not _is_literal(value):
                problems.append(f"{section}: {key} {value} is not literal")
    return problems


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(re.sub(r"\bsys\.std(out|err)\b", "None", text))
    except (SyntaxError, ValueError):
        return False
    return True


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parents[1].name}/{path.name}")
def test_our_configs_stay_within_the_lists(path: Path) -> None:
    assert check_config(load(path)) == []


def test_there_are_configs_to_check() -> None:
    assert {"train.yaml", "inference.yaml", "evaluate.yaml", "multi_gpu_train.yaml", "nir.yaml"} <= {
        path.name for path in CONFIGS
    }
    assert LOGGING


@pytest.mark.parametrize(
    "expression",
    [
        "$__import__('os').system('id')",
        "$import os",
        "$open('/etc/passwd').read()",
        "$(lambda: 1)()",
        "$[x for x in ().__class__.__base__.__subclasses__()]",
        "$@network.__class__.__mro__",
        "$torch.load('model.pt')",
        "$torch.hub.load('a', 'b')",
        "$os.environ.update(PATH='')",
        "$os.remove('x')",
        "$monai.bundle.run()",
        "$@network.eval()",
        "$eval('1')",
        "$getattr(@network, 'x')",
        "$print(open)",
        "$f'{@network}'",
        "$(x := 1)",
        "$torch",
        "$sys.stdout",
        "$not python",
        "%/etc/other.yaml#key",
    ],
)
def test_a_hostile_expression_is_flagged(expression: str) -> None:
    assert check_config({"network": {"_target_": "torch.nn.Linear", "in_features": expression}})


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.load",
        "torch.hub.load",
        "torch.utils.cpp_extension.load",
        "torch.serialization.os.system",
        "monai.bundle.run",
        "monai.bundle.scripts.os.system",
        "monai.networks.nets.NoSuchNetwork",
        "monai_fair.losses.nir.__builtins__",
        "NoSuchComponent",
        "download_url",
        "run",
        "load",
        "$@target",
        ["os.system"],
        "torchvision.models.resnet18",
        "scripts.attack.Network",
    ],
)
def test_a_hostile_target_is_flagged(target: Any) -> None:
    assert check_config({"a": [{"_target_": target}]})


def test_a_hostile_import_is_flagged() -> None:
    assert check_config({"imports": ["$import torch", "$import subprocess"]}) == [
        "imports#1: import outside the list, import subprocess"
    ]


def test_the_place_is_named() -> None:
    content = {"train": {"handlers": [{"_target_": "StatsHandler"}, {"_target_": "os.system", "command": "id"}]}}
    assert check_config(content) == [
        "train#handlers#1: target os.system is outside monai., torch., ignite., monai_fair."
    ]


@pytest.mark.parametrize("path", LOGGING, ids=str)
def test_our_logging_names_standard_handlers_with_literal_arguments(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "class=" in text
    assert check_logging(text) == []


HANDLER = "[handler_console]\nclass={}\nargs={}\n"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("StreamHandler", "(__import__('os').system('id'),)"),
        ("__import__('os').system('id') or StreamHandler", "(sys.stdout,)"),
        ("StreamHandler()", "(sys.stdout,)"),
        ("os.system", "('id',)"),
        ("FileHandler", "(open('x'),)"),
        ("FileHandler", "(sys.argv[0],)"),
    ],
)
def test_a_hostile_logging_file_is_flagged_and_refused_by_monai(tmp_path: Path, name: str, arguments: str) -> None:
    text = HANDLER.format(name, arguments)
    assert check_logging(text)
    from monai.bundle import ConfigWorkflow

    whole = (
        "[loggers]\nkeys=root\n[handlers]\nkeys=console\n[formatters]\nkeys=\n"
        "[logger_root]\nlevel=INFO\nhandlers=console\n" + text
    )
    (tmp_path / "logging.conf").write_text(whole)
    config = tmp_path / "train.yaml"
    config.write_text("run: []\n")
    with pytest.raises(ValueError, match="GHSA-wvpx-5qmp-46g3"):
        ConfigWorkflow(str(config), logging_file=str(tmp_path / "logging.conf"), workflow_type=None)
