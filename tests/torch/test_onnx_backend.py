# SPDX-License-Identifier: Apache-2.0
"""ONNX's own test runner, pointed at the device: operators of each kind that docs/operators.md has. Nothing may run on the host."""

import onnx.backend.test

import npuemu.onnx_backend

runner = onnx.backend.test.BackendTest(npuemu.onnx_backend, __name__)

for operators in (
    "relu|sigmoid|tanh|exp|log|sqrt|gelu_(default|tanh)_[12]|leakyrelu|elu|hardsigmoid|hardswish|clip|softplus",  # element by element
    "(basic_)?conv_with|conv_with_strides_(no_padding|padding|and_asymmetric_padding)|convtranspose",
    "matmul_[234]d|gemm_(all_attributes|default_[a-z_]*|alpha|beta|transposeA|transposeB)|qlinearmatmul_2D_(u?int8)_float32",
    "maxpool_2d_(default|pads|strides|ceil|dilations)|averagepool_2d_(default|pads|strides|ceil)|globalaveragepool|globalmaxpool",
    "softmax_(axis_[012]|default_axis|example|large_number|negative_axis)|layer_normalization_(2d|3d)_axis[012]|batchnorm_(epsilon|example)",
    "reduce_(sum|mean|max|min)_(default_axes_keepdims|keepdims|do_not_keepdims|negative_axes_keepdims)_(example|random)",
    "transpose_(default|all_permutations_[0-9])|reshape_(allowzero_reordered|negative_dim|one_dim|reordered_all_dims)|concat_[123]d_axis_[012]|slice",
    "quantizelinear|dequantizelinear",
):
    runner.include(f"^test_({operators})(_expanded)?_cpu$")

# The host has these types; docs/operators.md says so.
runner.exclude("_(e4m3fn|e5m2|float4|uint2|int2|blocked|float8)")

for case in runner.test_cases.values():
    for name, test in list(vars(case).items()):
        if getattr(test, "__unittest_skip__", False):  # what the patterns leave out, 4000 cases
            delattr(case, name)
globals().update(runner.test_cases)
