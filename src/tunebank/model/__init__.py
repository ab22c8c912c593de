"""Model files read, made canonical and split into kernels."""

from tunebank.model.calls import called_name, is_kernel_call, kernel_calls
from tunebank.model.join import Join, joined, possible_joins
from tunebank.model.model import (
    FrontHalf,
    Model,
    ModelFunction,
    load_model,
    main_functions,
)
from tunebank.model.process import Reader
from tunebank.model.shapes import DimValues, InputShapes
from tunebank.model.spec import TensorSpec

__all__ = [
    "DimValues",
    "FrontHalf",
    "InputShapes",
    "Join",
    "Model",
    "ModelFunction",
    "Reader",
    "TensorSpec",
    "called_name",
    "is_kernel_call",
    "joined",
    "kernel_calls",
    "load_model",
    "main_functions",
    "possible_joins",
]
