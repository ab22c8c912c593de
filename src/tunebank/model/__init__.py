"""Model files read, made canonical and split into kernels."""

from tunebank.model.fold import fold_constants
from tunebank.model.model import Model, load_model
from tunebank.model.onnx_file import OnnxModel, read_onnx
from tunebank.model.spec import TensorSpec

__all__ = ["Model", "OnnxModel", "TensorSpec", "fold_constants", "load_model", "read_onnx"]
