// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package vec

func tiers() []*tier { return []*tier{{name: "go"}} }
