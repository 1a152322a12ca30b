// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"log/slog"

	"npuemu/internal/findings"
)

// A Finding is one kind of mistake that a guest made, and how often.
type Finding = findings.Finding

// findingList collects what the guest did wrong. Its lock is a leaf.
type findingList struct{ *findings.List }

func newFindings(log *slog.Logger) findingList { return findingList{findings.New(log)} }

func (f findingList) add(id, rule, evidence string) { f.Add(id, rule, evidence) }
func (f findingList) list() []Finding               { return f.All() }
