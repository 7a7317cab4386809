"""The verb ``embed`` of the command line; torch and open_clip are loaded when it runs."""

from monai_fair.data.artifacts import read_json


def embed(
    manifest: str,
    root: str,
    out: str,
    model: str,
    weights: str,
    slices: int = 3,
    batch_size: int = 16,
    num_workers: int = 4,
) -> str:
    """Describe each subject's images by an image encoder of open_clip; ends with the path of a table for discover.

    Nothing is downloaded. Needs the extra clip: pip install 'monai-fair[clip]'.

    Args:
        manifest: the CSV file; NIfTI volumes or pictures.
        root: data root that the image paths start from.
        out: the CSV file to write; how it was made stands in a JSON file of the same name beside it.
        model: a name of open_clip such as ViT-B-32, or the open_clip_config.json that lies beside weights on a hub.
        weights: its file of weights.
        slices: axial, coronal and sagittal slices of a volume, so many of each.
        batch_size: images encoded at once, a volume with all its slices.
        num_workers: threads that read.
    """
    from monai_fair.subgroups.image_embeddings import embed_files

    path = embed_files(
        manifest,
        out,
        root=root,
        model=model,
        weights=weights,
        slices=slices,
        batch_size=batch_size,
        num_workers=num_workers,
    )
    record = read_json(path.with_suffix(".json"), "embeddings")
    lines = [
        f"{record['n']} subjects, {record['n_images']} images, {record['n_dimensions']} numbers each; "
        f"{len(record['failed'])} images failed",
        *(f"failed: {failure['image']}: {failure['reason']}" for failure in record["failed"]),
        *(f"note: {note}" for note in record["notes"]),
        f"record: {path.with_suffix('.json')}",
        str(path),
    ]
    return "\n".join(lines)
