// SPDX-License-Identifier: Apache-2.0

package plan

// NewShort is New with programs of fewer instructions.
var NewShort = newPlan
