"""An image encoder of open_clip from a file of weights: the right one, or an error; no network, no text, no code."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monai_fair.errors import ArtifactError, MonaiFairError
from monai_fair.subgroups.clip_encoder import load_clip_encoder

open_clip = pytest.importorskip("open_clip")
NAME = "xyzzy-16"
VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
TINY = {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT}
SUFFIXES = (".pt", ".safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a tiny model, known to open_clip, and its weights in two formats; to be read only."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("tiny")
    (path / f"{NAME}.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(path / f"{NAME}.json")
    torch.manual_seed(0)
    weights = open_clip.create_model(NAME).state_dict()
    torch.save(weights, path / "weights.pt")
    save_file(weights, path / "weights.safetensors")
    return path


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_features_are_those_of_the_whole_model(folder: Path, suffix: str) -> None:
    encoder = load_clip_encoder(NAME, folder / f"weights{suffix}", device="cpu")
    model, _, preprocess = open_clip.create_model_and_transforms(NAME, pretrained=str(folder / "weights.pt"))
    with torch.no_grad():
        features = model.eval().encode_image(preprocess(picture())[None])
    found = encoder.encode(encoder.transform(picture())[None])
    torch.testing.assert_close(found, features / torch.linalg.vector_norm(features))
    assert (encoder.dimensions, found.norm().item()) == (8, pytest.approx(1.0))
    stated = {name: value for name, value in model.visual.preprocess_cfg.items() if name not in ("size", "mode")}
    assert encoder.preprocessing == {"image_size": (32, 32), **stated}


def test_a_configuration_as_biomedclip_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timm encoder, text by a model that would be fetched, images prepared in another way."""
    vision = {"timm_model_name": "test_vit", "timm_model_pretrained": True, "timm_pool": "", "image_size": 160}
    text = {"hf_model_name": "microsoft/nowhere", "hf_tokenizer_name": "microsoft/nowhere"}
    stated = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear", "resize_mode": "squash"}
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": stated}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    timm = sys.modules["timm"]
    trunk, head = timm.create_model("test_vit", num_classes=0).eval(), torch.nn.Linear(64, 8, bias=False)
    weights = {f"module.visual.trunk.{name}": value for name, value in trunk.state_dict().items()}
    weights |= {"module.visual.head.proj.weight": head.weight.detach(), "module.text.transformer.x": torch.ones(3)}
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "weights.bin")

    def refuse(*_: object) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    encoder = load_clip_encoder(str(tmp_path / "open_clip_config.json"), tmp_path / "weights.bin", device="cpu")
    assert encoder.preprocessing == {"image_size": (160, 160), "fill_color": 0, **stated}
    pixels = np.asarray(picture().resize((160, 160), Image.Resampling.BILINEAR), np.float32) / 255
    image = torch.from_numpy((pixels - 0.5) / 0.25).permute(2, 0, 1)
    torch.testing.assert_close(encoder.transform(picture()), image, rtol=0, atol=1e-5)
    with torch.no_grad():
        features = head(trunk(image[None]))
    torch.testing.assert_close(encoder.encode(image[None]), features / features.norm(), rtol=1e-4, atol=1e-5)


CLIP = {  # of arXiv:2103.00020, as its code has them
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
SIGLIP = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "resize_mode": "squash"}
NOTE = (
    "{name}: weights published under this name want images prepared in different ways; CLIP's own was used; give the "
    "open_clip_config.json of the weights as --model if they want another"
)
QUICK = "were trained with another activation; if these are used, give --model {name}-quickgelu"


@pytest.mark.parametrize(
    ("name", "preprocessing", "notes"),
    [
        (NAME, CLIP, []),
        ("ViT-B-16-SigLIP", SIGLIP, []),
        ("ViT-H-14-quickgelu", CLIP, [NOTE]),
        ("RN50x4", CLIP, ["{name}: of the weights published under this name, openai " + QUICK]),
    ],
)
def test_a_name_stands_for_what_its_published_weights_want(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, preprocessing: dict[str, Any], notes: list[str]
) -> None:
    # the tiny model under the name of a large one, whose published weights open_clip knows
    monkeypatch.setattr(open_clip, "get_model_config", lambda _: {**TINY, "quick_gelu": name.endswith("quickgelu")})
    encoder = load_clip_encoder(name, folder / "weights.pt")
    assert list(encoder.notes) == [note.format(name=name) for note in notes]
    assert encoder.preprocessing == {"image_size": (32, 32), "fill_color": 0, **preprocessing}


def told(model: str, weights: object) -> str:
    with pytest.raises(MonaiFairError) as caught:
        load_clip_encoder(model, str(weights))
    return str(caught.value)


def test_nothing_is_downloaded(folder: Path) -> None:
    assert told("none.json", "laion2b_s34b_b79k") == (
        "embed: 2 problems\n"
        "  1. expected a file of open_clip's weights (.safetensors, .bin, .pt) at laion2b_s34b_b79k, found none; "
        "nothing is downloaded: fetch it yourself and give its path\n"
        "  2. expected open_clip_config.json at none.json, found none; nothing is downloaded: fetch it yourself and "
        "give its path"
    )
    assert told("hf-hub:microsoft/BiomedCLIP", folder / "weights.pt") == (
        "--model hf-hub:microsoft/BiomedCLIP: expected a name of open_clip or a file open_clip_config.json, got a hub "
        "or a folder, and nothing is downloaded; fetch open_clip_config.json and the weights yourself and give --model "
        "DIR/open_clip_config.json --weights FILE"
    )


def test_a_name_that_is_not_known_gets_near_ones(folder: Path) -> None:
    assert told("xyzzy-61", folder / "weights.pt") == (
        f"--model xyzzy-61: expected one of the {len(open_clip.list_models())} names of "
        f"open_clip.list_models(), such as {NAME}, or a file open_clip_config.json; correct it"
    )


def test_an_absent_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert told(NAME, folder / "weights.pt") == (
        "open_clip: expected the package, found none; pip install 'monai-fair[clip]'"
    )


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    stored = torch.load(folder / "weights.pt", weights_only=True)
    stored["visual.more"] = stored.pop("visual.proj")
    stored["visual.class_embedding"] = torch.ones(16)
    torch.save(stored, tmp_path / "other.pt")
    assert told(NAME, tmp_path / "other.pt") == (
        f"{tmp_path / 'other.pt'}: its weights do not fit {NAME}, 3 differ (first: visual.class_embedding, "
        "visual.proj, visual.more); give the model they are of"
    )


CONFIGURATIONS: list[tuple[object, str]] = [
    ([], "{path}: expected embed_dim and vision_cfg in model_cfg, found none; give open_clip_config.json"),
    ({"model_cfg": None}, "{path}: expected embed_dim and vision_cfg in model_cfg, found none"),
    (
        {**TINY, "vision_cfg": {"depth": 3}},
        "--model {path}: expected a model that open_clip can build, got TypeError: ",
    ),
    (
        {"model_cfg": TINY, "preprocess_cfg": [1]},
        "{path}: expected preprocess_cfg to hold names and values, got others",
    ),
    (
        {"model_cfg": TINY, "preprocess_cfg": {"resize_mode": "stretch"}},
        "--model {path}: expected a model that open_clip can build, got AssertionError: ",
    ),
]


@pytest.mark.parametrize(("content", "words"), CONFIGURATIONS)
def test_configurations_that_cannot_be_used(folder: Path, tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps(content))
    assert told(str(path), folder / "weights.pt").startswith(words.format(path=path))


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_weights_are_never_run(folder: Path, tmp_path: Path) -> None:
    torch.save({"visual.proj": Hostile(tmp_path / "was_here")}, tmp_path / "hostile.pt")
    with pytest.raises(ArtifactError, match=r"hostile\.pt: expected a file of weights without code in it; "):
        load_clip_encoder(NAME, tmp_path / "hostile.pt")
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_weights_are_named(folder: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"half{suffix}"
    path.write_bytes((folder / f"weights{suffix}").read_bytes()[:2000])
    assert told(NAME, path).startswith(f"{path}: expected a file of weights without code in it; ")
