// SPDX-License-Identifier: Apache-2.0

package ktap

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// short is a test as one line: verdict, name, directive, subtests in brackets.
func short(tests []*Test) string {
	var s []string
	for _, t := range tests {
		line := map[bool]string{true: "+", false: "-"}[t.OK] + t.Name
		if t.Directive != "" {
			line += "!" + t.Directive
			if t.Reason != "" {
				line += "=" + t.Reason
			}
		}
		if len(t.Diagnostics) > 0 {
			line += fmt.Sprintf("%q", t.Diagnostics)
		}
		if len(t.Children) > 0 {
			line += "[" + short(t.Children) + "]"
		}
		s = append(s, line)
	}
	return strings.Join(s, ", ")
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, text, want string
		problems         []string
	}{
		{"plain", "KTAP version 1\n1..2\nok 1 one\nnot ok 2 two\n", "+one, -two", nil},
		{"TAP 13, dashes, carriage returns", "TAP version 13\r\n1..1\r\nok 1 - one\r\n", "+one", nil},
		{"plan at the end", "ok 1 one\nok 2 two\n1..2\n", "+one, +two", nil},
		{"directives", "1..6\nok 1 a # SKIP no device\nnot ok 2 b # TODO bug 7\nok 3 c # xfail\nnot ok 4 d # TIMEOUT 3 s\nok 5 # SKIP\nok 6 number # 7 of 8\n",
			"+a!SKIP=no device, -b!TODO=bug 7, +c!XFAIL, -d!TIMEOUT=3 s, +test 5!SKIP, +number # 7 of 8", nil},
		{"kselftest: all skipped", "TAP version 13\n1..0 # SKIP no NPU\n", "+(all)!SKIP=no NPU", nil},
		{"diagnostics belong to the next result", "1..2\n# first\nfree text\nok 1 one\n# Totals: pass:1\nnot ok 2 two\n# Totals\n",
			`+one["first" "free text"], -two["Totals: pass:1"]`, nil},
		{"nested", `KTAP version 1
1..2
  KTAP version 1
  # Subtest: alpha
  1..2
    KTAP version 1
    1..1
    ok 1 deep
  ok 1 mid
  not ok 2 bad
not ok 1 alpha
ok 2 beta
`, `-alpha[+mid["Subtest: alpha"][+deep], -bad], +beta`, nil},
		{"nested without version lines", "1..1\n  1..2\n  ok 1 a\n  ok 2 b\nok 1 sum\n", "+sum[+a, +b]", nil},
		{"indented as a whole", "  1..1\n  ok 1 a\n", "+a", nil},
		{"escaped", "1..1\nok 1 a \\# SKIP b\n", "+a # SKIP b", nil},
		{"kernel messages between", "1..1\n[   12.5] npu 0000:00:02.0: reset\nok 1 a\n", `+a["[   12.5] npu 0000:00:02.0: reset"]`, nil},

		{"nothing", "", "", []string{"line 1: no results"}},
		{"cut off", "1..3\nok 1 a\n", "+a", []string{"line 3: 1 results, the plan says 3"}},
		{"cut off in a subtest", "1..1\n  1..2\n  ok 1 a\n", "-(cut off)!ERROR[+a]",
			[]string{"line 4: ends within subtests", "line 4: 1 results, the plan says 2"}},
		{"cut off above a subtest", "1..1\n  1..1\n    1..1\n    ok 1 a\n", "-(cut off)!ERROR[-(no result)!ERROR[+a]]",
			[]string{"line 5: ends within subtests", "line 5: subtests without a result of their own"}},
		{"too many", "1..1\nok 1 a\nok 2 b\n", "+a, +b", []string{"line 4: 2 results, the plan says 1"}},
		{"out of order", "1..2\nok 2 a\nok 1 b\n", "+a, +b", []string{"line 2: result 2, want 1", "line 3: result 1, want 2"}},
		{"doubled", "1..2\nok 1 a\nok 1 a\n", "+a, +a", []string{"line 3: result 1, want 2"}},
		{"two plans", "1..1\n1..2\nok 1 a\n", "+a", []string{"line 2: a second plan"}},
		{"no plan", "ok 1 a\n", "+a", []string{"line 2: no plan"}},
		{"bails out", "1..2\nok 1 a\nBail out! no memory\n", "+a", []string{"line 3: Bail out! no memory", "line 4: 1 results, the plan says 2"}},
		{"an endless plan", "1..99999999999\nok 1 a\n", `+a["1..99999999999"]`, []string{"line 3: no plan"}},
		{"no numbers", "1..1\nok one\nok 1 a\n", `+a["ok one"]`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tests, problems := Parse(tt.text)
			if diff := cmp.Diff(tt.want, short(tests)); diff != "" {
				t.Errorf("tests (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.problems, problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVerdicts(t *testing.T) {
	tests, problems := Parse(`1..8
  1..2
  ok 1 a
  not ok 2 b # TODO later
ok 1 group
  1..1
  not ok 1 c
not ok 2 failed
  1..1
  ok 1 d
not ok 3 cleanup failed
ok 4 e # SKIP why
ok 5 f # XFAIL
ok 6 g # TODO works by now
not ok 7 h # SKIP a lie
ok 8 i # XPASS unknown
`)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var got []string
	Leaves(tests, func(path string, t *Test) { got = append(got, fmt.Sprint(path, " ", t.Verdict())) })
	want := []string{"group/a 0", "group/b 3", "failed/c 1", "cleanup failed/d 0", "cleanup failed 1", "e 2", "f 3", "g 0", "h 1", "i 1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("leaves (-want +got):\n%s", diff)
	}
}

// FuzzParse: whatever Parse makes of a text is written as a document without
// problems, which reads back the same.
func FuzzParse(f *testing.F) {
	f.Add("KTAP version 1\n1..2\n  KTAP version 1\n  1..1\n  ok 1 a # SKIP b\nok 1 c\nnot ok 2 d\n")
	f.Add("1..0 # SKIP\n")
	f.Add("   ok 1 \\# # TODO x\n ok 1\nBail out!\n")
	f.Fuzz(func(t *testing.T, text string) {
		tests, problems := Parse(text)
		if len(tests) == 0 {
			if len(problems) == 0 {
				t.Fatal("no results and no problem")
			}
			return
		}
		var b strings.Builder
		if err := Write(&b, tests); err != nil {
			t.Fatal(err)
		}
		again, problems := Parse(b.String())
		if len(problems) > 0 {
			t.Errorf("%v\n%s", problems, b.String())
		}
		var count func([]*Test) string
		count = func(tests []*Test) string {
			var s []string
			for _, t := range tests {
				s = append(s, fmt.Sprint(t.OK, t.Directive, t.Verdict(), "[", count(t.Children), "]"))
			}
			return strings.Join(s, " ")
		}
		if diff := cmp.Diff(count(tests), count(again)); diff != "" {
			t.Errorf("read back (-first +second):\n%s\n%s", diff, b.String())
		}
	})
}
