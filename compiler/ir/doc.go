// SPDX-License-Identifier: Apache-2.0

// Package ir is the compiler's graph: typed tensors of known shape and the operations between
// them, printable and parseable as text (Print, Parse), with a verifier (Verify).
//
// There are two levels of operations. At the model level a node's Op is an operator of ONNX with
// its name, inputs and attributes of opset 13 or later ("Conv", "QLinearConv"), in ONNX's layout, and with
// the meaning of the opset that its attribute opset names;
// importers make it. At the device level it begins with "npu."; passes make it, the back end
// consumes it, and its semantics are below. A node that a pass gave to the host has the Op
// "host." and the operator's name, with that operator's semantics; nothing else runs there.
//
// # Device level
//
// Sections are those of docs/spec/numerics.md. Images are N, H, W, C; "the channel axis" is the
// last. Bool tensors hold uint8 0 and 1. Attributes without a default (=) are required. Lists
// called per-channel have one entry, or one for each channel of the output.
//
// Requantization of an integer accumulator (npu.conv, npu.gemm, npu.requantize):
//
//	rounding="none"      the result is the accumulator: int32, or with act and clip the
//	                     floating-point type of the output (§6.6)
//	rounding="fp32"      r of §6.9.3 with scales (per-channel)
//	rounding="one"       r of §6.9.1 with multipliers, shifts (per-channel)
//	rounding="two"       r of §6.9.2, likewise
//	zero_y=0, lo, hi     the zero point and the clamp of §6.9, of the output's type;
//	                     lo and hi are required unless rounding is "none"
//
// The operations, with their inputs and attributes:
//
//	npu.conv(x, w, bias?)       §6.8. x is [N, H, W, Cin] of int8, uint8, int16 or a floating-point
//	                            type; w a constant [Cout, KH, KW, Cin/groups] of int4, int8, uint8 or
//	                            a floating-point type; bias a constant [Cout], int32 or fp32, which is
//	                            the accumulator's seed (0 if there is none). y is [N, OH, OW, Cout].
//	                            strides=[y, x], pads=[top, left, bottom, right], dilations=[y, x],
//	                            groups, zero_x=0, zeros_w=[0] (per-channel), requantization; of
//	                            floating-point types act="" and clip, below. Padding is zero_x.
//	npu.gemm(a, b, bias?)       §6.8. a is [G, M, K] or [1, M, K], b [G, K, N] or [1, K, N], y [G, M, N].
//	                            With trans_a=0 or trans_b=0 not 0 the last two axes of a or b are
//	                            exchanged. bias is a constant [N]. zero_a=0, zeros_b=[0] (one, or
//	                            one for each column), requantization, act, clip as npu.conv.
//	npu.requantize(x)           x of int8, uint8, int16 or int32; of x − zero_x=0 (mod 2³²); y of an
//	                            integer type of up to 32 bits
//	npu.quantize(x)             §6.9.4: x floating point, y integer. scales, zeros (per index of
//	                            axis=0, or one), lo, hi
//	npu.dequantize(x)           §6.9.4: x integer, y floating point (§6.6 from fp32). scales, zeros, axis=0
//	npu.cast(x)                 §6.6. saturate=1: integers, E4M3 and E5M2 saturate, else wrap or are
//	                            not saturating. trunc=0: fp32 to int32 drops the fraction
//	npu.element(x, y?)          op: a name of ELEMENT (docs/spec/isa.md §5.6.18) but select. x and y
//	                            have one type and are broadcast as numpy does; computed in int32
//	                            or fp32 (§6.7, §6.10, §6.12) and converted to the output's type,
//	                            saturating unless wrap=0 is 1
//	npu.clip(x)                 floating point: clamp of §6.7 to clip=[lo, hi]; integer: to lo, hi
//	npu.select(c, x, y)         x where c (bool, uint8) is not 0, else y; all broadcast
//	npu.table(x, t)             §6.13: x and y of int8 or uint8, t a constant of 256 such bytes
//	npu.qadd(x, y)              TFLite's sum (§6.10): (x − zeros[0]) << left_shift and (y − zeros[1]) <<
//	                            left_shift, scaled by multipliers[0], shifts[0] and [1]; sub=0: their
//	                            sum, else their difference, mod 2³²; scaled by [2]; plus zeros[2],
//	                            clamped to lo, hi. rounding "one" or "two". Broadcast. With rounding="fp32" the
//	                            sum of §6.18 of factors scales[0] and [1] and the term scales[2], of int8, uint8, int16
//	npu.qmul(x, y)              TFLite's product: (x − zeros[0])·(y − zeros[1]) mod 2³², scaled by
//	                            multipliers[0], shifts[0] with rounding; plus zeros[2], clamped to lo, hi
//	npu.pool(x)                 kind="max" or "avg" over windows of [N, H, W, C]: kernel=[h, w], strides, pads,
//	                            dilations=[1, 1]. Padding never wins a maximum; in an average it counts
//	                            in n if count_pad=0 is not 0. max of integers: min and max; avg of
//	                            integers: §6.9.5, then clamped to lo, hi (the type's range if left out);
//	                            of floating point: sum of §6.11 / fp32(n)
//	npu.resize(x)               §6.15: [N, H, W, C] to [N, OH, OW, C] of the same type. mode="floor", "ceil", "round_down",
//	                            "round_up" (the nearest), "linear" or "fixed"; half=0, center=0 not 0 for the steps
//	                            of §6.15.1; mul=[y, x], div=[y, x] fp32, 0 or left out for none; of "fixed" steps=[y, x] in 2⁻¹⁰
//	npu.reduce(x)               §6.11 over the last axis, which becomes 1: kind="sum", "max", "min" or "mean"
//	                            ("mean" of floating point only). wrap=0 as npu.element
//	npu.softmax(x)              §6.14.1 over the last axis
//	npu.layernorm(x, g, b)      §6.14.2 over the last axis; g, b constant fp32; epsilon
//	npu.rmsnorm(x, g)           §6.14.3, likewise
//	npu.transpose(x)            perm: axis i of y is axis perm[i] of x
//	npu.reshape(x)              the same elements in the same order
//	npu.bitcast(x)              the same bytes as elements of another type of 8 bits or more: of as many, or of
//	                            narrower ones that get an axis of their own, or back, which removes it
//	npu.concat(x, …)            along axis
//	npu.slice(x)                starts, steps, one for each axis; element i of an axis is start + i·step, which
//	                            lies inside; a step may be below 0. The output's shape says how many
//	npu.pad(x)                  pads=[begin…, end…], all ≥ 0, of zero=0: an integer; or value=0: fp32, of
//	                            floating-point types
//	npu.gather(x, i)            along axis; i is int32 or int64, constant or computed. The shape of y is x's
//	                            with axis replaced by i's shape. A negative index counts from the
//	                            end; one outside is an error, of a constant when compiling, otherwise of the run: BAD_INDEX
//	npu.expand(x)               broadcast to the output's shape, as numpy does
//
// Every operation may have chain=0: those with the same number, not 0, that follow each other are computed
// together, tile by tile, and what only they use is not in memory. It changes no result.
//
// act names a function of one operand of ELEMENT, applied to the fp32 accumulator; clip=[lo, hi] is
// npu.clip behind it. Operations that copy (transpose, reshape, concat, slice, pad, gather, expand,
// select of equal types) take every type of up to 64 bits and leave all bits as they are; select
// and the others canonicalize NaN as the instruction set says.
package ir
