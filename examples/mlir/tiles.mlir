// SPDX-License-Identifier: Apache-2.0
//
// How linear.mlir becomes tiles for an array of 32 × 32. Memory space 1 is the scratchpad, 2 the accumulators.
module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%module: !transform.any_op {transform.readonly}) {
    // A tile of results, and with it what it is computed from.
    %whole = transform.structured.match ops{["linalg.generic"]} in %module : (!transform.any_op) -> !transform.any_op
    %requant, %m, %n = transform.structured.fuse %whole {tile_sizes = [32, 32], tile_interchange = [0, 1]}
      : (!transform.any_op) -> (!transform.any_op, !transform.any_op, !transform.any_op)
    %function = transform.structured.match ops{["func.func"]} in %module : (!transform.any_op) -> !transform.any_op
    transform.apply_dce to %function : !transform.any_op

    // What it reads gets a place in the scratchpad.
    %matmul = transform.structured.match ops{["linalg.matmul"]} in %m : (!transform.any_op) -> !transform.any_op
    %near, %operands, %0 = transform.structured.pad %matmul
      {padding_values = [0 : i8, 0 : i8, 0 : i32], padding_dimensions = [0, 1, 2], pack_paddings = [1, 1, 0], copy_back_op = "none"}
      : (!transform.any_op) -> (!transform.any_op, !transform.any_op, !transform.any_op)
    %broadcast = transform.structured.match ops{["linalg.broadcast"]} in %m : (!transform.any_op) -> !transform.any_op
    %bias, %row, %1 = transform.structured.pad %broadcast
      {padding_values = [0 : i32, 0 : i32], padding_dimensions = [0, 1], pack_paddings = [1, 0], copy_back_op = "none"}
      : (!transform.any_op) -> (!transform.any_op, !transform.any_op, !transform.any_op)
    %scaled, %scales, %2 = transform.structured.pad %requant
      {padding_values = [0 : i32, 0 : i32, 0 : i8, 0 : i8], padding_dimensions = [0, 1], pack_paddings = [0, 1, 1, 0], copy_back_op = "none"}
      : (!transform.any_op) -> (!transform.any_op, !transform.any_op, !transform.any_op)
    %3, %4 = transform.structured.bufferize_to_allocation %operands {memory_space = 1} : !transform.any_op
    %5, %6 = transform.structured.bufferize_to_allocation %row {memory_space = 1} : !transform.any_op
    %7, %8 = transform.structured.bufferize_to_allocation %scales {memory_space = 1} : !transform.any_op

    // Its sums are in the accumulators, its bytes in the scratchpad.
    %9, %10 = transform.structured.bufferize_to_allocation %bias {memory_space = 2, bufferize_destination_only} : !transform.any_op
    %11, %12 = transform.structured.bufferize_to_allocation %scaled {memory_space = 1, bufferize_destination_only} : !transform.any_op

    // A product for each tile of weights that the array holds.
    %inner, %k = transform.structured.tile_using_for %near tile_sizes [0, 0, 32]
      : (!transform.any_op) -> (!transform.any_op, !transform.any_op)
    transform.yield
  }
}
