// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTables: each row of each table of the documents has the columns of its head, and a table ends with an empty line
// or a comment; other text that follows it at once would be another row.
func TestTables(t *testing.T) {
	tables := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
			if d != nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "build") {
				return filepath.SkipDir
			}
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		tables += checkTables(t, path, string(b))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if tables < 100 {
		t.Errorf("%d tables looked at, there are more", tables)
	}
}

func checkTables(t *testing.T, path, text string) (tables int) {
	t.Helper()
	columns, fenced := 0, false
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		switch row := !fenced && strings.HasPrefix(line, "|"); {
		case !row && columns > 0 && line != "" && !strings.HasPrefix(line, "<!--"):
			t.Errorf("%s:%d: a table's last row is followed by text without an empty line between", path, i+1)
			columns = 0
		case !row:
			columns = 0
		case columns == 0:
			columns = bars(line)
			tables++
		case bars(line) != columns:
			t.Errorf("%s:%d: %d columns, the head of the table has %d", path, i+1, bars(line)-1, columns-1)
		}
	}
	return tables
}

// bars counts the bars of a row that part columns: in code, too, a bar parts them unless it is escaped.
func bars(row string) int {
	return strings.Count(strings.ReplaceAll(row, `\|`, ""), "|")
}
