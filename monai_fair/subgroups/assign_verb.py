"""The verb ``assign`` of the command line; scikit-learn is loaded when it runs."""


def assign(
    discovery: str,
    registered: str,
    manifest: str,
    root: str,
    out: str,
    template_mask: str = "",
    regions: str = "",
    embeddings: str = "",
    num_workers: int = 4,
) -> str:
    """Give new registered subjects their probabilities of discovered subgroups; ends with the path of the table.

    Args:
        discovery: folder of discover, in which something is claimed.
        registered: folder of the new subjects' registration, by the model and the settings of the discovery's.
        manifest: their manifest.csv; without labels and splits too.
        root: data root that the image paths start from; the template's brain mask is looked for there.
        out: the CSV file to write.
        template_mask: mask of the template's brain, if it is not under root.
        regions: label image on the template's grid, for a discovery of regional_volumes.
        embeddings: table of subject_id and numbers, for a discovery of embeddings.
        num_workers: threads that read.
    """
    from monai_fair.data.tables import read_table
    from monai_fair.errors import ArtifactError
    from monai_fair.subgroups.new_subjects import assign_files

    path = assign_files(
        discovery,
        registered,
        manifest,
        out,
        root=root,
        template_mask=template_mask or None,
        regions=regions or None,
        embeddings=embeddings or None,
        num_workers=num_workers,
    )
    table = read_table(path, ArtifactError)
    counts = table["subgroup"][table["subgroup"] != ""].value_counts().sort_index()
    left_out = table[table["subgroup"] == ""]
    found = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "no subgroup"
    lines = [f"{len(table)} subjects; {found}; {len(left_out)} without"]
    lines += [
        f"without: {subject}: {reason}"
        for subject, reason in zip(left_out["subject_id"], left_out["reason"], strict=True)
    ]
    return "\n".join([*lines, str(path)])
