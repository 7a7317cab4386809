"""Batch inference: every image gets a row, one that cannot be used gets its reason."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from monai_fair.errors import root_cause
from monai_fair.label.requests import truth

logger = logging.getLogger(__name__)

Infer = Callable[[Mapping[str, Any], Any], dict[str, Any]]


class FairBatchInfer(BatchInferTask):
    """MONAI Label's batch inference, on machines without a GPU too, with progress, and past images that fail.

    Images are taken one after the other: the config of a bundle is shared, and a thread that sets its device would
    set it for all.
    """

    def __call__(self, request: Mapping[str, Any], datastore: Any, infer: Infer) -> dict[str, Any]:
        """Infer on the images that the request names.

        Args:
            request: of the app; ``images``, ``max_batch_size``, ``label_tag``, ``save_label`` (by default true),
                ``device`` and ``multi_gpu`` are read.
            datastore: where the images are.
            infer: called with a request for each image.

        Returns:
            Image id to the app's answer, or to ``{"error": reason}``.
        """
        most = request.get("max_batch_size") or 0
        total = len(sorted(self.get_images(request, datastore))[: most or None])
        done, kept = 0, truth(request.get("save_label", True))

        def counted(one: Mapping[str, Any], store: Any) -> dict[str, Any]:
            nonlocal done
            try:
                # MONAI Label keeps every answer, whatever is asked for
                answer, end = infer({**one, "save_label": kept}, store), ""
                if not kept:
                    answer["label"] = None  # a file that is removed now
            except Exception as error:  # whatever it is: the others are waiting
                reason = root_cause(error)
                answer, end = {"error": reason}, f": failed, {reason}"
            done += 1
            logger.info("batch inference: %d of %d: %s%s", done, total, one["image"], end)
            return answer

        gpus = torch.cuda.device_count() if truth(request.get("multi_gpu", True)) else 0
        # what each transform took would drown the progress
        asked = {"logging": "WARNING", **request, "multi_gpu": gpus > 0, "max_workers": 1, "max_batch_size": most}
        found: dict[str, Any] = super().__call__(asked, datastore, counted)
        failed = sum("error" in row for row in found.values())
        logger.info("batch inference: done, %d of %d images failed", failed, total)
        return found
