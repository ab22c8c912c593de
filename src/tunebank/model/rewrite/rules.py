"""Which rule is for which operator."""

from __future__ import annotations

from tunebank.model.rewrite.control import decide_if, unroll_loop, unroll_scan
from tunebank.model.rewrite.engine import Rule, Rules
from tunebank.model.rewrite.functions import expand_function
from tunebank.model.rewrite.graph import DOMAIN
from tunebank.model.rewrite.one_dim import widen_conv, widen_pool
from tunebank.model.rewrite.recurrent import unroll_recurrent
from tunebank.model.rewrite.sums import split_sum

# ONNX defines these by other operators, and TVM lacks them.
_DEFINED_BY_OTHERS = (
    "BlackmanWindow",
    "HammingWindow",
    "HannWindow",
    "SoftmaxCrossEntropyLoss",
    "NegativeLogLikelihoodLoss",
    "Celu",
    "Swish",
    "SwiGLU",
    "CenterCropPad",
    "RotaryEmbedding",
    "LinearAttention",
    "CausalConvWithState",
)

_BY_OPERATOR: dict[str, tuple[Rule, ...]] = {
    "Sum": (split_sum,),
    "Conv": (widen_conv,),
    "ConvTranspose": (widen_conv,),
    "AveragePool": (widen_pool,),
    "MaxPool": (widen_pool,),
    "LpPool": (widen_pool,),
    "GlobalAveragePool": (widen_pool,),
    "GlobalMaxPool": (widen_pool,),
    "LSTM": (unroll_recurrent,),
    "GRU": (unroll_recurrent,),
    "RNN": (unroll_recurrent,),
    "If": (decide_if,),
    "Loop": (unroll_loop,),
    "Scan": (unroll_scan,),
}

RULES: Rules = {
    **{(DOMAIN, name): rules for name, rules in _BY_OPERATOR.items()},
    **{(DOMAIN, name): (expand_function,) for name in _DEFINED_BY_OTHERS},
}
