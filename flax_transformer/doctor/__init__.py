"""Examine a Transformer in PyTorch or JAX: is it what it should be? Loads neither framework by itself."""

from flax_transformer.doctor.diagnosis import Diagnosis
from flax_transformer.doctor.examine import assert_healthy, examine
from flax_transformer.doctor.report import HeatMap, Report
from flax_transformer.doctor.result import Result
from flax_transformer.doctor.subject import ExaminationError

__all__ = ["Diagnosis", "ExaminationError", "HeatMap", "Report", "Result", "assert_healthy", "examine"]
