"""What whole runs share: small studies of brains, and a process that is as it was afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import run

BUNDLE = Path(__file__).parents[2] / "bundles" / "brain_mri_fair_classification"


@pytest.fixture(autouse=True)
def one_thread(restored: None) -> None:
    """The runs' processes take as many threads as this one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stages() -> list[str]:
    """Those of a study, as its page names them."""
    return [
        "fit of the cohort",
        "registration of every subject",
        "discovery of subgroups",
        "re-balancing",
        "generation of images",
        "training and evaluation",
    ]


@pytest.fixture(scope="session")
def study() -> Callable[..., None]:
    """Do a study of brains with few steps of a small network."""

    def run_study(data: Path, output: Path, **options: Any) -> None:
        lattice = {"network_def#width": 24, "network_def#hidden": 8, "progress": False}
        run(
            config_file=str(BUNDLE / "configs" / "study.yaml"),
            bundle_root=str(BUNDLE),
            dataset_dir=str(data),
            output_dir=str(output),
            seeds=[0],
            block_mm=24.0,
            fit_overrides={"levels": [[1.0, 3, 2]], "val_levels": [[1.0, 3, 1]], **lattice},
            register_overrides={
                "code_levels": [[1.0, 3, 2]],
                "residual_levels": [],
                "num_workers": 0,
                "report": False,
                **lattice,
            },
            generate_overrides={"rule": "interpolation", "order": 1, "limit": 4, **lattice},
            overrides={"image_size": [20, 24, 20], "max_epochs": 1, "cache_workers": 1},
            jobs=1,
            logging_file=False,
            **{"audit#resamples": 100, "audit#permutations": 20, **options},
        )

    return run_study
