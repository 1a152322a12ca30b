// SPDX-License-Identifier: Apache-2.0

package model

// WriteAs returns m as a file of another format.
func (m *Model) WriteAs(format string) ([]byte, error) { return m.write(format) }
