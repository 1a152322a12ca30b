// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rowsOfMistakes is the least that §9.5 has: a change that loses rows shall say so here.
const rowsOfMistakes = 300

// So many statuses §9.1 and §5.7 have at least.
const (
	statusesOfCommands = 43
	statusesOfPrograms = 20
)

var statusRow = regexp.MustCompile("^\\| 0x[0-9a-f]{2} \\| `(\\w+)` \\|")

// section91 returns §9.1 of errors.md.
func section91(t *testing.T, text string) string {
	t.Helper()
	_, section, ok := strings.Cut(text, "\n## §9.1 ")
	if !ok {
		t.Fatal("errors.md has no §9.1")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

// TestMistakes: the tables of docs/spec/errors.md §9.5 are complete rows, each test that they name exists, and each status of §9.1 and §5.7 has a row.
func TestMistakes(t *testing.T) {
	text, err := os.ReadFile("../docs/spec/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## §9.5 ")
	if !ok {
		t.Fatal("errors.md has no §9.5")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	legend, tables, _ := strings.Cut(section, "\n### ")

	places := map[string]map[string]bool{} // prefix of a test → names of the tests there
	words := map[string]bool{}             // of the column "Reset needed"
	for line := range strings.Lines(legend) {
		cells := cells(line)
		switch {
		case len(cells) == 4 && strings.HasPrefix(cells[0], "`"):
			for i := 0; i < 4; i += 2 {
				dir := strings.Trim(strings.Split(cells[i+1], ",")[0], "`")
				places[strings.Trim(cells[i], "`")] = testsIn(t, filepath.Join("..", dir))
			}
		case len(cells) == 2:
			words[cells[0]] = true
		}
	}

	rows := 0
	told := legend // what rows say is seen
	seen := map[string]bool{}
	for line := range strings.Lines("### " + tables) {
		if strings.HasPrefix(line, "### ") {
			clear(seen) // a mistake stands once under each subject
		}
		cells := cells(line)
		if len(cells) == 0 || cells[0] == "Mistake" || strings.HasPrefix(cells[0], "---") {
			continue
		}
		rows++
		if len(cells) != 4 || cells[0] == "" || cells[1] == "" {
			t.Errorf("%q: want mistake, what is seen, reset needed, test", line)
			continue
		}
		if seen[cells[0]] {
			t.Errorf("%q stands twice", cells[0])
		}
		seen[cells[0]] = true
		told += "\n" + cells[1]
		if word, _, _ := strings.Cut(cells[2], ":"); !words[word] {
			t.Errorf("%q: %q is not among the words for a reset", cells[0], word)
		}
		for _, group := range strings.Split(cells[3], "; ") {
			prefix, names, _ := strings.Cut(group, " ")
			if places[prefix] == nil || names == "" {
				t.Errorf("%q: no test, or in no place that §9.5 names: %q", cells[0], group)
				continue
			}
			for _, name := range strings.Split(names, ", ") {
				if name = strings.Trim(name, "`"); !places[prefix][name] {
					t.Errorf("%q: there is no test %s %s", cells[0], prefix, name)
				}
			}
		}
	}
	statuses := 0
	for line := range strings.Lines(section91(t, string(text))) {
		if m := statusRow.FindStringSubmatch(line); m != nil && m[1] != "SUCCESS" {
			if statuses++; !strings.Contains(told, "`"+m[1]+"`") {
				t.Errorf("§9.1 has status %s, and no row of §9.5 says who sees it", m[1])
			}
		}
	}
	if statuses < statusesOfCommands {
		t.Errorf("§9.1 has %d statuses, want at least %d", statuses, statusesOfCommands)
	}
	page, err := os.ReadFile("../docs/spec/isa.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(page), "\n## §5.7 ")
	program, _, _ = strings.Cut(program, "\n## ")
	n := 0
	for line := range strings.Lines(program) {
		cells := cells(line)
		if len(cells) != 3 || !strings.HasPrefix(cells[0], "`") {
			continue
		}
		n++
		if !strings.Contains(section91(t, string(text)), "| "+cells[0]+" |") || !strings.Contains(told, cells[0]) {
			t.Errorf("a program can end with %s (§5.7), which §9.1 or §9.5 does not have", cells[0])
		}
	}
	if n < statusesOfPrograms {
		t.Errorf("§5.7 has %d statuses, want at least %d", n, statusesOfPrograms)
	}
	if rows < rowsOfMistakes {
		t.Errorf("%d rows, want at least %d", rows, rowsOfMistakes)
	}
}

// cells returns the cells of a line of a table, or nothing.
func cells(line string) []string {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "|-") {
		return nil
	}
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i, c := range cells {
		cells[i] = strings.TrimSpace(c)
	}
	return cells
}

// In a kernel selftest: TEST_F(fixture, name), and macros that make such tests of a name: BAD_BO(name, …).
var (
	selftest      = regexp.MustCompile(`(?m)^TEST_F\w*\((\w+), (\w+)`)
	selftestMacro = regexp.MustCompile(`(?m)^#define (\w+)\(name,[^\n]*\n\s*TEST_F\((\w+), (\w*?)(?:##)?name\)`)
)

// testsIn returns the tests and fuzz targets of a directory: Go functions, or of C fixture.name.
func testsIn(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && (strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "Fuzz")) {
				names[fn.Name.Name] = true
			}
		}
	}
	if files, err = filepath.Glob(filepath.Join(dir, "*.c")); err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range selftest.FindAllStringSubmatch(string(text), -1) {
			names[m[1]+"."+m[2]] = true
		}
		for _, m := range selftestMacro.FindAllStringSubmatch(string(text), -1) {
			for _, use := range regexp.MustCompile(`(?m)^`+m[1]+`\((\w+),`).FindAllStringSubmatch(string(text), -1) {
				names[m[2]+"."+m[3]+use[1]] = true
			}
		}
	}
	if len(names) == 0 {
		t.Errorf("%s has no tests", dir)
	}
	return names
}
