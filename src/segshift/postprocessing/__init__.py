"""Post-processing of decoded masks: chosen on validation cases, and kept only where it helped."""

from segshift.postprocessing.applying import postprocessed
from segshift.postprocessing.choosing import chosen_rules
from segshift.postprocessing.components import ReferenceComponents, merged, reference_components
from segshift.postprocessing.judging import Effect, JudgedCase, effects
from segshift.postprocessing.rules import (
    MINIMUM,
    RECORD,
    Choice,
    Rule,
    Rules,
    common_rules,
    read_rules,
    rules_from_dict,
    told,
)

__all__ = [
    "MINIMUM",
    "RECORD",
    "Choice",
    "Effect",
    "JudgedCase",
    "ReferenceComponents",
    "Rule",
    "Rules",
    "chosen_rules",
    "common_rules",
    "effects",
    "merged",
    "postprocessed",
    "read_rules",
    "reference_components",
    "rules_from_dict",
    "told",
]
