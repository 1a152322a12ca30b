// SPDX-License-Identifier: Apache-2.0
//
// A quantized linear layer with ReLU, int8 × int8 → int32 → int8, with a scale for each channel: y = clamp((x·w + bias) · q / 2^s, 0, 127), rounded.
#all = affine_map<(m, n) -> (m, n)>
#channels = affine_map<(m, n) -> (n)>

func.func @linear(%x: tensor<96x256xi8>, %w: tensor<256x64xi8>, %bias: tensor<64xi32>, %q: tensor<64xi32>, %s: tensor<64xi8>,
                  %y: tensor<96x64xi8> {bufferization.writable = true}) -> tensor<96x64xi8> {
  %lo = arith.constant 0 : i32
  %hi = arith.constant 127 : i32
  %sums = tensor.empty() : tensor<96x64xi32>
  %start = linalg.broadcast ins(%bias : tensor<64xi32>) outs(%sums : tensor<96x64xi32>) dimensions = [0]
  %acc = linalg.matmul ins(%x, %w : tensor<96x256xi8>, tensor<256x64xi8>) outs(%start : tensor<96x64xi32>) -> tensor<96x64xi32>
  %result = linalg.generic {indexing_maps = [#all, #channels, #channels, #all], iterator_types = ["parallel", "parallel"]}
      ins(%acc, %q, %s : tensor<96x64xi32>, tensor<64xi32>, tensor<64xi8>) outs(%y : tensor<96x64xi8>) {
  ^bb0(%sum: i32, %multiplier: i32, %shift: i8, %old: i8):
    %scaled = tosa.apply_scale %sum, %multiplier, %shift {double_round = false} : (i32, i32, i8) -> i32
    %low = arith.maxsi %scaled, %lo : i32
    %both = arith.minsi %low, %hi : i32
    %byte = arith.trunci %both : i32 to i8
    linalg.yield %byte : i8
  } -> tensor<96x64xi8>
  return %result : tensor<96x64xi8>
}
