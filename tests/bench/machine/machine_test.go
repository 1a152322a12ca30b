// SPDX-License-Identifier: Apache-2.0

package machine

import "testing"

func TestDescribe(t *testing.T) {
	for _, tt := range []struct{ name, cpuinfo, want string }{
		{"amd64", "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512vbmi avx512_vnni\n\nprocessor\t: 1\nmodel name\t: other\n", "2 processors of AMD EPYC (family 26, model 2), avx2 avx512_vnni avx512_vbmi"},
		{"arm64", "processor\t: 0\nBogoMIPS\t: 48.00\nFeatures\t: fp asimd\n\n", "2 processors"},
		{"nothing", "", "2 processors"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := describe(tt.cpuinfo, 2); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
