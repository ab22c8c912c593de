"""Which rule is for which operator."""

from __future__ import annotations

from tunebank.model.rewrite.added_convs import add_up_convs
from tunebank.model.rewrite.attention import open_attention, open_multi_head
from tunebank.model.rewrite.byte_sums import BYTE_RULES
from tunebank.model.rewrite.channel_norm import (
    open_group_norm,
    open_instance_norm,
    skip_reshape_back,
)
from tunebank.model.rewrite.control import decide_if, unroll_loop, unroll_scan
from tunebank.model.rewrite.engine import Rule, Rules
from tunebank.model.rewrite.functions import expand_function
from tunebank.model.rewrite.fused import (
    open_embed_norm,
    open_fast_gelu,
    open_fused_conv,
    open_fused_gemm,
    open_fused_matmul,
    open_gelu,
    open_quick_gelu,
    open_skip_norm,
    plain_bias_add,
    same_in_onnx,
    unpack_matmul_bits,
)
from tunebank.model.rewrite.graph import DOMAIN, MICROSOFT, ML
from tunebank.model.rewrite.masking import all_masked, cast_of_like, listed_axes
from tunebank.model.rewrite.max_indices import open_max_indices
from tunebank.model.rewrite.normalization import (
    open_layer_norm,
    open_lp_norm,
    open_rms_norm,
    open_simplified_layer_norm,
    open_training_batch_norm,
    whole_scale_layer_norm,
)
from tunebank.model.rewrite.one_dim import settle_pool_pads, widen_conv, widen_pool
from tunebank.model.rewrite.powers import open_pow, reduce_bools, reduce_integers, reduce_nothing
from tunebank.model.rewrite.qlinear import (
    lower_microsoft_quantize,
    lower_qgemm,
    lower_qlinear_binary,
    lower_qlinear_concat,
    lower_qlinear_unary,
    lower_qlinear_where,
)
from tunebank.model.rewrite.quantized import (
    lower_conv_integer,
    lower_dynamic_quantize,
    lower_dynamic_quantize_matmul,
    lower_matmul_integer,
    lower_matmul_integer_to_float,
    lower_qlinear_conv,
    lower_qlinear_matmul,
)
from tunebank.model.rewrite.recurrent import unroll_recurrent
from tunebank.model.rewrite.reorder import (
    clamp_slice,
    column_space_to_depth,
    crop_before_wrap,
    gather_reversed,
    scatter_by_position,
)
from tunebank.model.rewrite.resize import settle_resize
from tunebank.model.rewrite.signal import open_dft, open_stft
from tunebank.model.rewrite.small_rules import (
    clip_integers,
    compare_binarizer,
    compare_one_hot,
    drop_dropout,
    fix_eye,
    gather_features,
    one_sided_isinf,
    open_linear_regressor,
    open_scaler,
    unsigned_sign,
)
from tunebank.model.rewrite.sums import split_sum
from tunebank.model.rewrite.transposed import open_col2im, settle_conv_transpose

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
    "Attention",
)

_BY_OPERATOR: dict[str, tuple[Rule, ...]] = {
    "Sum": (split_sum,),
    "Add": (add_up_convs,),
    "Conv": (widen_conv,),
    "AveragePool": (settle_pool_pads, widen_pool),
    "MaxPool": (settle_pool_pads, widen_pool, open_max_indices),
    "LpPool": (settle_pool_pads, widen_pool),
    "GlobalAveragePool": (widen_pool,),
    "GlobalMaxPool": (widen_pool,),
    "LSTM": (unroll_recurrent,),
    "GRU": (unroll_recurrent,),
    "RNN": (unroll_recurrent,),
    "QLinearConv": (lower_qlinear_conv,),
    "QLinearMatMul": (lower_qlinear_matmul,),
    "ConvInteger": (lower_conv_integer,),
    "MatMulInteger": (lower_matmul_integer,),
    "DynamicQuantizeLinear": (lower_dynamic_quantize,),
    "Resize": (settle_resize,),
    "Upsample": (settle_resize,),
    "ConvTranspose": (settle_conv_transpose, widen_conv),
    "Col2Im": (open_col2im,),
    "Dropout": (drop_dropout,),
    "EyeLike": (fix_eye,),
    "IsInf": (one_sided_isinf,),
    "Pow": (open_pow,),
    "ReverseSequence": (gather_reversed,),
    "SpaceToDepth": (column_space_to_depth,),
    "DFT": (open_dft,),
    "STFT": (open_stft,),
    "CastLike": (cast_of_like,),
    "Squeeze": (listed_axes,),
    "Unsqueeze": (listed_axes,),
    "Equal": (all_masked,),
    "Slice": (clamp_slice,),
    "Pad": (crop_before_wrap,),
    "ScatterElements": (scatter_by_position,),
    "Scatter": (scatter_by_position,),
    "OneHot": (compare_one_hot,),
    "Clip": (clip_integers,),
    "Sign": (unsigned_sign,),
    "ReduceMean": (reduce_integers,),
    "LayerNormalization": (open_layer_norm, whole_scale_layer_norm),
    "RMSNormalization": (open_rms_norm,),
    "SimplifiedLayerNormalization": (open_simplified_layer_norm,),
    "BatchNormalization": (open_training_batch_norm,),
    "InstanceNormalization": (open_instance_norm,),
    "GroupNormalization": (open_group_norm,),
    "Reshape": (skip_reshape_back,),
    "LpNormalization": (open_lp_norm,),
    "ReduceMax": (reduce_bools, reduce_nothing),
    "ReduceMin": (reduce_bools, reduce_nothing),
    "ReduceSum": (reduce_nothing,),
    "ReduceSumSquare": (reduce_nothing,),
    "ReduceL1": (reduce_nothing,),
    "ReduceL2": (reduce_nothing, reduce_integers),
    "ReduceProd": (reduce_nothing,),
    "ReduceLogSum": (reduce_nothing,),
    "ReduceLogSumExp": (reduce_nothing,),
    "If": (decide_if,),
    "Loop": (unroll_loop,),
    "Scan": (unroll_scan,),
}

_OF_ML: dict[str, tuple[Rule, ...]] = {
    "ArrayFeatureExtractor": (gather_features,),
    "Binarizer": (compare_binarizer,),
    "Scaler": (open_scaler,),
    "LinearRegressor": (open_linear_regressor,),
}

_OF_MICROSOFT: dict[str, tuple[Rule, ...]] = {
    "Attention": (open_attention,),
    "MultiHeadAttention": (open_multi_head,),
    "Gelu": (open_gelu,),
    "BiasGelu": (open_gelu,),
    "FastGelu": (open_fast_gelu,),
    "QuickGelu": (open_quick_gelu,),
    "FusedMatMul": (open_fused_matmul,),
    "TransposeMatMul": (open_fused_matmul,),
    "FusedGemm": (open_fused_gemm,),
    "FusedConv": (open_fused_conv,),
    "SkipLayerNormalization": (open_skip_norm,),
    "SkipSimplifiedLayerNormalization": (open_skip_norm,),
    "EmbedLayerNormalization": (open_embed_norm,),
    "SimplifiedLayerNormalization": (open_simplified_layer_norm,),
    "MatMulNBits": (unpack_matmul_bits,),
    "BiasAdd": (plain_bias_add,),
    "GatherND": (same_in_onnx,),
    "Trilu": (same_in_onnx,),
    "QLinearConv": (lower_qlinear_conv,),
    "QLinearAdd": (lower_qlinear_binary,),
    "QLinearMul": (lower_qlinear_binary,),
    "QLinearLeakyRelu": (lower_qlinear_unary,),
    "QLinearSigmoid": (lower_qlinear_unary,),
    "QLinearAveragePool": (lower_qlinear_unary,),
    "QLinearGlobalAveragePool": (lower_qlinear_unary,),
    "QLinearReduceMean": (lower_qlinear_unary,),
    "QLinearSoftmax": (lower_qlinear_unary,),
    "QLinearConcat": (lower_qlinear_concat,),
    "QLinearWhere": (lower_qlinear_where,),
    "QGemm": (lower_qgemm,),
    "QuantizeLinear": (lower_microsoft_quantize,),
    "DequantizeLinear": (lower_microsoft_quantize,),
    "MatMulIntegerToFloat": (lower_matmul_integer_to_float,),
    "DynamicQuantizeMatMul": (lower_dynamic_quantize_matmul,),
}

RULES: Rules = {
    **{(DOMAIN, name): rules for name, rules in _BY_OPERATOR.items()},
    **{(ML, name): rules for name, rules in _OF_ML.items()},
    **{(MICROSOFT, name): rules for name, rules in _OF_MICROSOFT.items()},
    **{(DOMAIN, name): (expand_function,) for name in _DEFINED_BY_OTHERS},
}

RULES_FOR_BYTES: Rules = {
    **RULES,
    **{key: (*rules, *RULES.get(key, ())) for key, rules in BYTE_RULES.items()},
}
"""For CPUs that have an instruction for sums of products of bytes."""
