// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package gemm

func tiers() []*tier { return []*tier{portable()} }
