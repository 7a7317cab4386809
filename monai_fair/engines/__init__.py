"""Engines: what runs for long, with progress and resume."""

from monai_fair.engines.bundle_runs import BundleRun
from monai_fair.engines.code_table import CodeTable, read_codes
from monai_fair.engines.cohort_images import CohortImages
from monai_fair.engines.cohort_saver import CohortSaver
from monai_fair.engines.cohort_trainer import CohortTrainer
from monai_fair.engines.collapse_studies import CollapseStudies
from monai_fair.engines.finding_studies import FindingStudies
from monai_fair.engines.generated_images import CodeDecoder, DonorScans, ImageGenerator, collate_donors
from monai_fair.engines.generated_saver import GeneratedImageSaver
from monai_fair.engines.generation_cells import GenerationOptions
from monai_fair.engines.generation_plan import GenerationPlan, plan_generation, read_generation_plan
from monai_fair.engines.image_match import Level, TemplateMatch, total_steps
from monai_fair.engines.label_propagation import LabelPropagation, LabelValuesd, RegisteredSubject
from monai_fair.engines.registration_evaluator import FitQuality, RegistrationEvaluator
from monai_fair.engines.registration_files import TemplateSpace, read_template, template_match
from monai_fair.engines.registration_saver import RegistrationSaver
from monai_fair.engines.registration_shards import register_in_shards
from monai_fair.engines.stages import StageClock
from monai_fair.engines.study import BundleStudy
from monai_fair.engines.subject_fit import Deformations, SubjectFit
from monai_fair.engines.subject_images import SubjectImages, collate_subjects
from monai_fair.engines.template_grid_check import TemplateGridCheckd
from monai_fair.engines.trials import trial_table, write_trials

__all__ = [
    "BundleRun",
    "BundleStudy",
    "CodeDecoder",
    "CodeTable",
    "CohortImages",
    "CohortSaver",
    "CohortTrainer",
    "CollapseStudies",
    "Deformations",
    "DonorScans",
    "FindingStudies",
    "FitQuality",
    "GeneratedImageSaver",
    "GenerationOptions",
    "GenerationPlan",
    "ImageGenerator",
    "LabelPropagation",
    "LabelValuesd",
    "Level",
    "RegisteredSubject",
    "RegistrationEvaluator",
    "RegistrationSaver",
    "StageClock",
    "SubjectFit",
    "SubjectImages",
    "TemplateGridCheckd",
    "TemplateMatch",
    "TemplateSpace",
    "collate_donors",
    "collate_subjects",
    "plan_generation",
    "read_codes",
    "read_generation_plan",
    "read_template",
    "register_in_shards",
    "template_match",
    "total_steps",
    "trial_table",
    "write_trials",
]
