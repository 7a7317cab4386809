"""Fairness while annotating: bundles in MONAI Label, decisions by group, and which image to label next.

Nothing here needs MONAI Label but :mod:`monai_fair.label.server`, which is loaded by the server alone.
"""

__all__: list[str] = []
