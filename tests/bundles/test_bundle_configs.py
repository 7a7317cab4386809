"""Every config parses and every component in it builds; the bundle keeps MONAI's contracts."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from monai_fair.data.artifacts import sha256
from monai_fair.engines import BundleStudy, CohortTrainer, RegistrationEvaluator, RegistrationSaver
from monai_fair.networks import ControlLattice, LatticeINR

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

SCHEMA = Path(__file__).parent / "meta_schema.json"


@pytest.fixture(params=["bundle", "brains", "registration", "fairread"])
def any_bundle(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights in the format and size of torchvision's ResNet-18."""
    torchvision = pytest.importorskip("torchvision")
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return str(path)


@pytest.mark.parametrize(
    "names",
    [("train",), ("train", "nir"), ("train", "evaluate"), ("train", "nir", "evaluate"), ("train", "worst_group")],
    ids="+".join,
)
def test_every_component_of_full_size_builds(
    bundle: Any, trained: Path, imagenet: str, tmp_path: Path, names: tuple[str, ...]
) -> None:
    options: dict[str, Any] = {"pretrained": True, "weights_file": imagenet, "image_size": 224, "tiny_network": False}
    if "evaluate" in names:
        options["ckpt_path"] = str(trained / "model.pt")
    workflow = bundle.workflow(*names, output=tmp_path, **options)
    built = bundle.build_all(workflow)
    assert isinstance(built["train#trainer"], SupervisedTrainer)
    assert isinstance(built["validate#evaluator"], SupervisedEvaluator)
    assert built["network"].fc.in_features == 512
    assert sum(parameter.numel() for parameter in built["network"].parameters()) == 11_177_025  # 11 176 512 + 513
    assert ("nir" in built) == ("nir" in names)
    assert not list(tmp_path.iterdir())  # building writes nothing


@pytest.mark.parametrize("names", [("train", "small"), ("train", "small", "nir"), ("train", "rnflt")], ids="+".join)
def test_every_component_of_an_overlay_builds(bundle: Any, tmp_path: Path, names: tuple[str, ...]) -> None:
    built = bundle.build_all(bundle.workflow(*names, output=tmp_path, tracking_dir=str(tmp_path / "events")))
    assert isinstance(built["train#trainer"], SupervisedTrainer)


@pytest.mark.parametrize("names", [("inference",), ("inference", "rnflt")], ids="+".join)
def test_every_component_of_inference_builds(bundle: Any, tmp_path: Path, names: tuple[str, ...]) -> None:
    built = bundle.build_all(bundle.workflow(*names, output=tmp_path, save_features=True, tiny_network=False))
    assert isinstance(built["evaluator"], SupervisedEvaluator)
    assert built["network"].fc.in_features == 512
    assert len(built["dataset"]) == 60


def test_every_component_of_a_study_builds(bundle: Any, tmp_path: Path) -> None:
    # the audit is a function of the finished study: tests/engines runs it
    workflow = ConfigWorkflow(
        bundle.files("study"),
        workflow_type=None,
        bundle_root=str(bundle.root),
        dataset_dir=str(bundle.cohort),
        output_dir=str(tmp_path),
    )
    study = bundle.build_all(workflow, but=("audit",))["study"]
    assert isinstance(study, BundleStudy)
    assert [run.name for run in study.runs] == [f"{arm}/seed_{seed}" for seed in range(5) for arm in ("erm", "nir")]


def test_every_component_of_a_cohort_fit_builds(registration: Any, tmp_path: Path) -> None:
    options = {"tiny_network": False, "tracking_dir": str(tmp_path / "events")}
    built = registration.build_all(registration.workflow("train", output=tmp_path / "run", **options))
    assert isinstance(built["train#trainer"], CohortTrainer)
    assert isinstance(built["validate#evaluator"], RegistrationEvaluator)
    metadata = json.loads((registration.configs / "metadata.json").read_text())
    code = metadata["deformation_data_format"]["inputs"]["code"]
    assert built["network"].code_shape == (code["num_channels"], *code["spatial_shape"])
    assert built["network"].lattice.image_shape == (24, 28, 24)
    assert built["max_epochs"] == built["train#trainer"].state.max_epochs == built["lr_scheduler"].T_max == 4
    # a code for each subject asks which images can be read, so the copies are made here
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["cache"]


@pytest.mark.parametrize("names", [("inference",), ("inference", "evaluate"), ("inference", "shards")], ids="+".join)
def test_every_component_of_a_registration_builds(
    registration: Any, fitted: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    # the page and the registration itself run when they are built: other tests look at them
    options = {"ckpt_path": str(fitted / "model.pt"), "tiny_network": False}
    workflow = registration.workflow(*names, output=tmp_path, **options)
    built = registration.build_all(workflow, but=("page", "registration"))
    assert isinstance(built["evaluator"], RegistrationEvaluator)
    assert isinstance(built["saver"], RegistrationSaver)
    assert isinstance(built["network"], LatticeINR)
    assert len(built["dataset"]) == (3 if "evaluate" in names else 12)
    assert [path.name for path in tmp_path.iterdir()] == ["registration.json"]  # binds the folder to its settings


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The environment that torchrun gives to its processes, for a group of one; no TCP port is needed."""
    import ignite.distributed as idist

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
        idist.sync()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("overlays", [(), ("nir",)], ids=["erm", "nir"])
def test_every_component_of_multi_gpu_training_builds(bundle: Any, tmp_path: Path, overlays: tuple[str, ...]) -> None:
    names = ("train", "small", *overlays, "multi_gpu_train")
    built = bundle.build_all(bundle.workflow(*names, output=tmp_path / "run", initialize=False))
    assert isinstance(built["network"], torch.nn.parallel.DistributedDataParallel)
    assert isinstance(built["train#dataloader"].sampler, torch.utils.data.DistributedSampler)
    assert isinstance(built["validate#dataloader"].sampler, torch.utils.data.DistributedSampler)
    assert built["is_main"] is True


@pytest.mark.usefixtures("one_process")
def test_every_component_of_a_cohort_fit_in_processes_builds(registration: Any, tmp_path: Path) -> None:
    workflow = registration.workflow("train", "multi_gpu_train", output=tmp_path, initialize=False)
    built = registration.build_all(workflow)
    assert isinstance(built["network"], torch.nn.parallel.DistributedDataParallel)
    assert isinstance(built["train#dataloader"].sampler, torch.utils.data.DistributedSampler)
    assert isinstance(built["validate#dataloader"].sampler, torch.utils.data.DistributedSampler)
    assert built["is_main"] is True


@pytest.mark.parametrize(
    ("which", "model", "names", "kind"),
    [
        ("bundle", "trained", ("train",), "train"),
        ("bundle", "trained", ("train", "nir"), "train"),
        ("bundle", "trained", ("train", "small"), "train"),
        ("bundle", "trained", ("inference",), "infer"),
        ("brains", "trained_on_brains", ("train",), "train"),
        ("brains", "trained_on_brains", ("train", "nir"), "train"),
        ("brains", "trained_on_brains", ("inference",), "infer"),
        ("registration", "fitted", ("train",), "train"),
        ("registration", "fitted", ("inference",), "infer"),
        ("registration", "fitted", ("inference", "evaluate"), "infer"),
    ],
)
def test_the_properties_that_monai_looks_up_are_there(
    request: pytest.FixtureRequest, tmp_path: Path, which: str, model: str, names: tuple[str, ...], kind: str
) -> None:
    bundle, folder = request.getfixturevalue(which), request.getfixturevalue(model)
    options = {"ckpt_path": str(folder / "model.pt")} if kind == "infer" else {}
    workflow = bundle.workflow(*names, output=tmp_path, kind=kind, **options)
    assert workflow.check_properties() == []
    assert workflow.version == "0.1.0"


def _verify_metadata(meta_file: Path, tmp_path: Path) -> None:
    # MONAI downloads the schema unless the file is there
    schema = tmp_path / "schema.json"
    shutil.copy(SCHEMA, schema)
    verify_metadata(meta_file=str(meta_file), filepath=str(schema), hash_val=sha256(schema), hash_type="sha256")


def test_metadata_keeps_the_model_zoos_schema(any_bundle: Any, tmp_path: Path) -> None:
    _verify_metadata(any_bundle.configs / "metadata.json", tmp_path)


@pytest.mark.parametrize("key", ["version", "network_data_format", "required_packages_version"])
def test_metadata_without_a_required_key_would_be_refused(any_bundle: Any, tmp_path: Path, key: str) -> None:
    content = json.loads((any_bundle.configs / "metadata.json").read_text())
    del content[key]
    broken = tmp_path / "metadata.json"
    broken.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="Failed validating"):
        _verify_metadata(broken, tmp_path)


def test_metadata_describes_this_version(any_bundle: Any) -> None:
    import monai_fair

    content = json.loads((any_bundle.configs / "metadata.json").read_text())
    assert content["version"] in content["changelog"]
    assert content["required_packages_version"]["monai-fair"] == monai_fair.__version__


@pytest.mark.parametrize("which", ["bundle", "brains"])
@pytest.mark.parametrize("config", ["train", "inference"])
def test_the_network_takes_and_gives_what_the_metadata_say(
    request: pytest.FixtureRequest, which: str, config: str
) -> None:
    bundle = request.getfixturevalue(which)
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle.configs / "metadata.json"),
        config_file=bundle.files(config)[0],
        device="cpu",
    )


@pytest.mark.parametrize("config", ["train", "inference"])
def test_the_deformation_takes_and_gives_what_the_metadata_say(registration: Any, tmp_path: Path, config: str) -> None:
    """The network maps a code to a field; MONAI's check reads the format of both under the names image and pred."""
    meta_file = registration.configs / "metadata.json"
    said = json.loads(meta_file.read_text())["deformation_data_format"]
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(meta_file),
        config_file=registration.files(config)[0],
        device="cpu",
        extra_forward_args={"grid": ControlLattice((24, 28, 24)).sampling_grid()},
        dataset_dir=str(registration.cohort),
        **{
            "_meta_#network_data_format#inputs#image": said["inputs"]["code"],
            "_meta_#network_data_format#outputs#pred": said["outputs"]["displacement"],
        },
    )


def test_registration_takes_and_gives_what_the_metadata_say(registration: Any, fitted: Path, tmp_path: Path) -> None:
    """From an image to labels it takes the inferer too, so MONAI's check of the network alone cannot be used."""
    formats = json.loads((registration.configs / "metadata.json").read_text())["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    parser = registration.workflow("inference", output=tmp_path, ckpt_path=str(fitted / "model.pt")).parser
    batch = parser.get_parsed_content("dataset")[0]["image"][None, None]
    inferer, network = (parser.get_parsed_content(name) for name in ("inferer", "network"))
    found = inferer(batch, network)
    assert image["num_channels"] == batch.shape[1]
    assert (str(batch.dtype), str(found.dtype)) == (f"torch.{image['dtype']}", f"torch.{pred['dtype']}")
    assert found.shape == (1, pred["num_channels"], *batch.shape[2:])
    assert pred["value_range"] == [int(found.min()), int(found.max())]
    assert {str(value) for value in inferer.values} == set(pred["channel_def"])


# TorchScript is deprecated in torch, and is what MONAI's ckpt_export writes.
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_the_trained_network_exports_as_torchscript(bundle: Any, trained: Path, tmp_path: Path) -> None:
    config = {"network_def#layers": [1, 1, 1, 1], "network_def#block_inplanes": [4, 8, 8, 16]}
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(trained / "model.pt"),
        meta_file=str(bundle.configs / "metadata.json"),
        config_file=bundle.files("inference")[0],
        **config,
    )
    eager = bundle.workflow("inference", output=tmp_path).parser.get_parsed_content("network_def")
    eager.load_state_dict(torch.load(trained / "model.pt", weights_only=True), strict=True)
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3, 28, 28)).astype(np.float32))
    exported = torch.jit.load(tmp_path / "model.ts")
    with torch.no_grad():
        torch.testing.assert_close(exported.eval()(images), eager.eval()(images))


def test_inference_repeats_training_line_by_line_where_it_must(bundle: Any, tmp_path: Path) -> None:
    """inference.yaml stands alone, so what makes a score must be the same text as in train.yaml."""
    train, inference = (
        copy.deepcopy(ConfigWorkflow(bundle.files(name), workflow_type=None).parser.config)
        for name in ("train", "inference")
    )
    for key in ("network_def", "last_layer", "deterministic_transforms", "mean", "std", "image_size", "load_size"):
        assert inference[key] == train[key], key
    assert inference["crop"] == train["validate"]["crop"]
    postprocessing = train["validate"]["postprocessing"]["transforms"]
    assert inference["postprocessing"]["transforms"] == postprocessing[:1]


def test_registration_repeats_the_fit_line_by_line_where_it_must(registration: Any) -> None:
    train, inference = (
        ConfigWorkflow(registration.files(name), workflow_type=None).parser.config for name in ("train", "inference")
    )
    for key in ("network_def", "network", "space", "grid", "image_shape", "input_settings", "smoothness"):
        assert inference[key] == train[key], key


def test_inference_is_one_file(any_bundle: Any) -> None:
    """MONAI Label reads exactly one file of a bundle, and drops a bundle with a .yml in silence."""
    assert "%" not in (any_bundle.configs / "inference.yaml").read_text()
    assert [path.name for path in any_bundle.configs.glob("inference*")] == ["inference.yaml"]
    assert not list(any_bundle.configs.glob("*.yml"))
