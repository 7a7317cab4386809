"""Addresses whose options are checked before MONAI Label's own functions get them.

All are coroutines that do not wait, as MONAI Label's are: requests are answered one after the other, and none sees
half of another's work.
"""

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from fastapi import APIRouter, Body, Depends, File, Form, HTTPException, Query, UploadFile
from fastapi.background import BackgroundTasks
from monailabel.config import settings
from monailabel.endpoints import activelearning, batch_infer, datastore, infer, scoring, train
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.interfaces.utils.app import app_instance

from monai_fair.errors import LabelError
from monai_fair.label.requests import BATCH, COMMON, Rule, check_id, check_options, infer_rules, is_ending

LENT = "lent"  # option of an inference: its image is a file that the server has just stored; no request may say so

_USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
_ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
_ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))
_JSON: Any = Body(None)
_FILE: Any = File(None)
_LABEL: Any = File(None)
_OUTPUT: Any = Query(None)


def checked_routes() -> APIRouter:
    """Return the routes, to stand before MONAI Label's of the same addresses."""
    router = APIRouter(prefix=settings.MONAI_LABEL_API_STR)
    for methods, path, answer in (
        ("POST", "/infer/wsi/{model}", _no_slides),
        ("POST", "/infer/wsi_v2/{model}", _no_slides),
        ("POST", "/infer/{model}", _infer),
        ("POST", "/batch/infer/{model}", _batch_infer),
        ("POST", "/train/", _train_all),
        ("POST", "/train/{model}", _train),
        ("POST", "/scoring/", _score_all),
        ("POST", "/scoring/{method}", _score),
        ("POST", "/activelearning/{strategy}", _next_sample),
        ("GET", "/datastore/image/info", _image_info),
        ("PUT", "/model/{model}", _no_model),
        ("DELETE", "/model/{model}", _no_model),
        ("POST", "/reload", _no_reload),
    ):
        router.add_api_route(path, answer, methods=[methods])
    return router


async def _infer(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: UploadFile | None = _FILE,
    label: UploadFile | None = _LABEL,
    output: infer.ResultType | None = _OUTPUT,
    user: Any = _USER,
) -> Any:
    """Run a model on an image of the datastore, on an upload, or on a session's image."""
    task = _named(app_instance()._infers, "model", model)
    options = check_options(f"model '{model}'", _parsed(params), _keys(task, COMMON), rules=_rules(task))
    if sum(map(bool, (image, session_id, file))) != 1:
        raise LabelError(
            f"model '{model}': expected an image's id, a session's id or a file, one of them, got "
            f"{', '.join(name for name, given in (('image', image), ('session', session_id), ('file', file)) if given)}"
        )
    if label is not None:
        raise LabelError(f"model '{model}': expected an image alone, got a label too; no model here takes one")
    if image:
        check_id("image", image)
    elif session_id and app_instance().sessions().get_session(session_id) is None:
        raise HTTPException(404, f"session: expected the id of a session, got {session_id[:100]!r}")
    elif file and not is_ending("".join(PurePath(file.filename or ".nii.gz").suffixes[-2:])):
        raise LabelError(f"file: expected a name such as x.png or x.nii.gz, got {str(file.filename)[:100]!r}")
    if not image:
        options[LENT] = True
    return infer.run_inference(
        background_tasks, model, image, session_id, json.dumps(options), file or None, None, output
    )


async def _batch_infer(
    model: str,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
    params: dict[str, Any] | None = _JSON,
    run_sync: bool = False,
    user: Any = _ADMIN,
) -> Any:
    """Run a model on many images."""
    task = _named(app_instance()._infers, "model", model)
    options = check_options(f"model '{model}'", params, _keys(task, BATCH) - {"attributes"}, rules=_rules(task))
    return batch_infer.run(model, images, options, run_sync)


async def _train(
    model: str,
    params: dict[str, Any] | None = _JSON,
    run_sync: bool = False,
    enqueue: bool = False,
    user: Any = _ADMIN,
) -> Any:
    """Train a model on the labels so far."""
    task = _named(app_instance()._trainers, "model", model)
    return train.run_model(model, check_options(f"train '{model}'", params, _keys(task, COMMON)), run_sync, enqueue)


async def _train_all(params: dict[str, Any] | None = _JSON, run_sync: bool = False, user: Any = _ADMIN) -> Any:
    """Train all models."""
    return train.run(_each(app_instance()._trainers, "train", params), run_sync)


async def _score(
    method: str, params: dict[str, Any] | None = _JSON, run_sync: bool = False, user: Any = _ANNOTATOR
) -> Any:
    """Score the images."""
    task = _named(app_instance()._scoring_methods, "method", method)
    return scoring.run_method(method, check_options(f"scoring '{method}'", params, _keys(task, COMMON)), run_sync)


async def _score_all(params: dict[str, Any] | None = _JSON, run_sync: bool = False, user: Any = _ANNOTATOR) -> Any:
    """Score the images by every method."""
    return scoring.run(_each(app_instance()._scoring_methods, "scoring", params), run_sync)


async def _next_sample(strategy: str, params: dict[str, Any] | None = _JSON, user: Any = _USER) -> Any:
    """Return the image to label next."""
    task = _named(app_instance()._strategies, "strategy", strategy)
    options = check_options(f"strategy '{strategy}'", params, _keys(task, COMMON))
    found = activelearning.sample(strategy, options, getattr(user, "username", None))
    return _without_path(found)


async def _image_info(image: str, user: Any = _USER) -> Any:
    """Return what is noted of an image."""
    return _without_path(datastore.get_image_info(image))


async def _no_slides(model: str) -> Any:
    raise LabelError(f"infer/wsi/{model}: expected a model of whole slides, this server has none; ask /infer/{model}")


async def _no_model(model: str) -> Any:
    raise HTTPException(
        403, f"model '{model}': whoever starts the server chooses its models; pack another bundle, or train this one"
    )


async def _no_reload() -> Any:
    raise HTTPException(403, "reload: whoever starts the server ends it; start it anew")


def _without_path(found: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out where an image lies: viewers ask for it by its id where they do not find that file."""
    return {name: value for name, value in found.items() if name != "path"}


def _rules(task: Any) -> dict[str, Rule]:
    """Return the rules of a model's options: MONAI Label writes those of ``displayable_configs`` into its config."""
    return infer_rules(getattr(task, "displayable_configs", {}))


def _named(tasks: Mapping[str, Any], what: str, name: str) -> Any:
    if name not in tasks:
        known = ", ".join(tasks) or "none"
        raise HTTPException(404, f"{what}: expected one of {known}, got {name[:100]!r}; correct the name")
    return tasks[name]


def _keys(task: Any, common: frozenset[str]) -> frozenset[str]:
    """Return the options that a task takes: its own, those it shows to viewers, and those that all have."""
    shown = task.info().get("config") or {}
    return frozenset(common) | frozenset(getattr(task, "request_keys", ())) | frozenset(shown)


def _each(tasks: Mapping[str, Any], what: str, params: dict[str, Any] | None) -> dict[str, Any]:
    """Check options by the name of their task."""
    given = check_options(what, params, [*tasks, *COMMON])
    return {
        name: check_options(f"{what} '{name}'", options, _keys(tasks[name], COMMON)) if name in tasks else options
        for name, options in given.items()
    }


def _parsed(params: str) -> Any:
    try:
        return json.loads(params) if params else {}
    except ValueError as error:
        raise LabelError(f"params: expected a JSON object, got {params[:100]!r}; {error}") from error
