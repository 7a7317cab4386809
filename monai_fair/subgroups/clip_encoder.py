"""The image encoder of a CLIP-like model from a file of weights: the only door to open_clip, and never to a network."""

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from monai_fair.errors import ArtifactError, MonaiFairError, raise_problems

_CONFIG = "open_clip_config.json"
_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode", "fill_color")
_SHOWN = 5
# Text is never encoded, and the text encoders of some models, BiomedCLIP's among them, would be downloaded.
_NO_TEXT = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}


@dataclass(frozen=True, eq=False)
class ClipEncoder:
    """An image encoder and how images are prepared for it.

    Attributes:
        network: images of shape ``(B, 3, H, W)`` to features ``(B, D)``.
        transform: from a picture to ``(3, H, W)``.
        preprocessing: what the transform does, for a record.
        dimensions: ``D``.
        device: where the network is.
        notes: what a reader should know of model and preprocessing.
    """

    network: nn.Module
    transform: Callable[[Image.Image], Tensor]
    preprocessing: Mapping[str, Any]
    dimensions: int
    device: torch.device
    notes: tuple[str, ...]

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Return the features of images ``(B, 3, H, W)``, each of length 1, shape ``(B, D)``, on the CPU."""
        return nn.functional.normalize(_features(self.network, images.to(self.device)), dim=-1).cpu()


@dataclass(frozen=True)
class _Architecture:
    """What a name or a configuration says of a model."""

    config: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def load_clip_encoder(model: str, weights: str | Path, *, device: torch.device | str | None = None) -> ClipEncoder:
    """Build the image encoder of a CLIP-like model and load its weights; nothing is ever downloaded.

    A file of weights does not say how images are to be prepared. ``open_clip_config.json`` does; for a name it is what
    all weights published for it want, or CLIP's own where they differ or there are none.

    Args:
        model: a name that ``open_clip.list_models()`` has, or the path of ``open_clip_config.json``, which lies beside
            weights on the Hugging Face hub. Its text encoder is not built.
        weights: open_clip's weights (``.safetensors``, ``.bin``, ``.pt``); those of the text encoder are not used.
        device: by default the GPU if there is one.

    Raises:
        MonaiFairError: if open_clip is not installed, or the model is not known, or is a name on a hub.
        ArtifactError: if a file is missing or damaged, or the weights do not fit the model.

    References:
        Radford et al., Learning transferable visual models from natural language supervision, ICML 2021
        (arXiv:2103.00020); Zhang et al., BiomedCLIP, NEJM AI 2025 (arXiv:2303.00915).
    """
    check_files(model, weights)
    try:
        import open_clip
    except ImportError as error:
        raise MonaiFairError("open_clip: expected the package, found none; pip install 'monai-fair[clip]'") from error
    architecture = _from_file(Path(model)) if is_config(model) else _from_name(open_clip, model)
    network = _build(open_clip, model, architecture.config)
    _load(network, Path(weights), model)
    used = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = network.eval().to(used)
    clip = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD, "bicubic", "shortest", 0)
    preprocessing = {**dict(zip(_PREPROCESSING, clip, strict=True)), **architecture.preprocessing}
    try:
        transform = open_clip.image_transform(network.image_size, is_train=False, **preprocessing)
        with torch.inference_mode():
            blank = transform(Image.new("RGB", (8, 8)))
            dimensions = _features(network, blank[None].to(used)).shape[1]
    except Exception as error:  # assertions and type errors of open_clip, about values of the configuration
        raise _unusable(model, error) from error
    stated = {"image_size": network.image_size, **preprocessing}
    return ClipEncoder(network, transform, stated, dimensions, used, architecture.notes)


def is_config(model: str) -> bool:
    """Say whether a model is given as a configuration file."""
    return model.endswith(".json")


def check_files(model: str, weights: str | Path) -> None:
    """Say at once that weights or a configuration are not there.

    Raises:
        ArtifactError: naming every file that is missing.
    """
    wanted = [(weights, "a file of open_clip's weights (.safetensors, .bin, .pt)")]
    wanted += [(model, _CONFIG)] if is_config(model) else []
    absent = [
        f"expected {kind} at {path}, found none; nothing is downloaded: fetch it yourself and give its path"
        for path, kind in wanted
        if not Path(path).is_file()
    ]
    raise_problems(ArtifactError, "embed", absent)


def _from_file(path: Path) -> _Architecture:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: expected a readable {_CONFIG}; {error}") from error
    config = document.get("model_cfg", document) if isinstance(document, dict) else None
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg"} <= set(config):
        raise ArtifactError(f"{path}: expected embed_dim and vision_cfg in model_cfg, found none; give {_CONFIG}")
    stated = document.get("preprocess_cfg") or {}
    if not isinstance(stated, dict):
        raise ArtifactError(f"{path}: expected preprocess_cfg to hold names and values, got others; give {_CONFIG}")
    return _Architecture(config, {name: stated[name] for name in _PREPROCESSING if stated.get(name) is not None})


def _from_name(open_clip: Any, model: str) -> _Architecture:
    if model.startswith(("hf-hub:", "local-dir:")):
        raise MonaiFairError(
            f"--model {model}: expected a name of open_clip or a file {_CONFIG}, got a hub or a folder, and nothing is "
            f"downloaded; fetch {_CONFIG} and the weights yourself and give --model DIR/{_CONFIG} --weights FILE"
        )
    name, known = model.replace("/", "-"), open_clip.list_models()
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, n=3)) or "ViT-B-32"
        raise MonaiFairError(
            f"--model {model}: expected one of the {len(known)} names of open_clip.list_models(), such as {near}, or a "
            f"file {_CONFIG}; correct it"
        )
    published = {tag: open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)}
    wanted = [
        {key: stated[key] for key in _PREPROCESSING if stated.get(key) is not None} for stated in published.values()
    ]
    config: dict[str, Any] = open_clip.get_model_config(name)
    notes = []
    if any(stated != wanted[0] for stated in wanted):
        notes.append(
            f"{model}: weights published under this name want images prepared in different ways; CLIP's own was used; "
            f"give the {_CONFIG} of the weights as --model if they want another"
        )
        wanted = []
    quick = [tag for tag, stated in published.items() if stated.get("quick_gelu")]
    if quick and not config.get("quick_gelu"):
        notes.append(
            f"{model}: of the weights published under this name, {', '.join(quick)} were trained with another "
            f"activation; if these are used, give --model {name}-quickgelu"
        )
    return _Architecture(config, wanted[0] if wanted else {}, tuple(notes))


def _build(open_clip: Any, model: str, config: Mapping[str, Any]) -> Any:
    try:
        vision = {**config["vision_cfg"], "timm_model_pretrained": False}  # true would download
        clip = open_clip.CustomTextCLIP(
            config["embed_dim"], vision, _NO_TEXT, quick_gelu=bool(config.get("quick_gelu", False))
        )
    except Exception as error:  # type, value and runtime errors of torch, timm and open_clip
        raise _unusable(model, error) from error
    return clip.visual


def _load(network: nn.Module, path: Path, model: str) -> None:
    """Copy the weights of the image encoder, and refuse those of another one."""
    own = network.state_dict()
    stored = {name.removeprefix("visual."): value for name, value in _read(path).items() if name.startswith("visual.")}
    wrong = [name for name in own if name not in stored or stored[name].shape != own[name].shape]
    wrong += sorted(set(stored) - set(own))
    if wrong:
        shown = ", ".join(f"visual.{name}" for name in wrong[:_SHOWN])
        raise ArtifactError(
            f"{path}: its weights do not fit {model}, {len(wrong)} differ (first: {shown}); give the model they are of"
        )
    network.load_state_dict(stored)


def _read(path: Path) -> dict[str, Tensor]:
    """Read names and tensors; open_clip's own reader falls back to one that runs code in the file."""
    try:
        packed = path.suffix == ".safetensors"
        stored: Any = load_file(path) if packed else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, runtime and safetensors errors for a file that is not weights
        reason = (str(error).splitlines() or [""])[0]
        raise ArtifactError(f"{path}: expected a file of weights without code in it; {reason}") from error
    stored = stored.get("state_dict", stored) if isinstance(stored, dict) else stored
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise ArtifactError(f"{path}: expected a state dict (names to tensors), got something else; give weights")
    # written by a training in several processes
    return {str(name).removeprefix("module."): value for name, value in stored.items()}


def _features(network: nn.Module, images: Tensor) -> Tensor:
    found = network(images)
    # the encoders of CoCa return their tokens too
    return torch.as_tensor(found[0] if isinstance(found, tuple) else found)


def _unusable(model: str, error: Exception) -> MonaiFairError:
    reason = (str(error).splitlines() or [""])[0]
    return MonaiFairError(
        f"--model {model}: expected a model that open_clip can build, got {type(error).__name__}: {reason}; correct it"
    )
