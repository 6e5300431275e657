"""The one configuration: ``params.yaml`` checked against frozen dataclasses, presets composed into it.

Stages call ``load_params`` or ``load_section``; nothing below a stage sees more than its own section.
This package is the only place that imports Hydra and OmegaConf.
"""

from gestalt.config.loading import load_params, load_section
from gestalt.config.params import Params

__all__ = ["Params", "load_params", "load_section"]
