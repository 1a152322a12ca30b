// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"archive/tar"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestModuleClosure(t *testing.T) {
	tree := parseModuleTree(""+
		"kernel/drm/drm.ko.xz:\n"+
		"kernel/drm/drm_kms_helper.ko.xz: kernel/drm/drm.ko.xz\n"+
		"kernel/drm/drm_shmem_helper.ko.xz: kernel/drm/drm_kms_helper.ko.xz kernel/drm/drm.ko.xz\n"+
		"kernel/drm/gpu-sched.ko.xz: kernel/drm/drm.ko.xz\n",
		"kernel/drivers/virtio/virtio_pci.ko\n")
	tests := []struct {
		name  string
		names []string
		want  []string
		err   string
	}{
		{name: "nothing"},
		{name: "in the kernel image", names: []string{"virtio-pci"}},
		{name: "dependencies first", names: []string{"drm_shmem_helper"},
			want: []string{"kernel/drm/drm.ko.xz", "kernel/drm/drm_kms_helper.ko.xz", "kernel/drm/drm_shmem_helper.ko.xz"}},
		{name: "dash and underscore, shared dependency once", names: []string{"gpu_sched", "gpu-sched", "drm"},
			want: []string{"kernel/drm/drm.ko.xz", "kernel/drm/gpu-sched.ko.xz"}},
		{name: "unknown", names: []string{"drm", "nosuch"}, err: `guest: the kernel has no module "nosuch"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tree.closure(tt.names)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("closure (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompareVersions(t *testing.T) {
	want := []string{"6.12.94+deb13-amd64", "6.12.107+deb13-amd64", "7.3.4+deb13-amd64", "10.0-rc1"}
	got := []string{want[3], want[1], want[0], want[2]}
	slices.SortFunc(got, compareVersions)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestStages(t *testing.T) {
	tests := []struct {
		name    string
		markers []string
		want    []Stage
		status  int
		ended   bool
	}{
		{name: "no marker"},
		{name: "no stage", markers: []string{"npuemu-guest: 4.00 init", "npuemu-guest: 5.50 exit 0"},
			want: []Stage{{"script", 1500 * time.Millisecond}}, ended: true},
		{name: "stages", markers: []string{"npuemu-guest: 4.00 init", "npuemu-guest: 4.50 stage load it", "npuemu-guest: 5.00 stage run", "npuemu-guest: 7.00 exit 3"},
			want: []Stage{{"load it", 500 * time.Millisecond}, {"run", 2 * time.Second}}, status: 3, ended: true},
		{name: "died", markers: []string{"npuemu-guest: 4.00 init", "npuemu-guest: 4.50 stage a", "npuemu-guest: 5.00 stage b"},
			want: []Stage{{"a", 500 * time.Millisecond}}},
		{name: "torn by kernel messages", markers: []string{"npuemu-guest: ", "npuemu-guest: [ 4.1] x", "npuemu-guest: 5.00 exit "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var res Result
			status, ended := res.addStages(tt.markers)
			if status != tt.status || ended != tt.ended {
				t.Errorf("status %d, ended %v, want %d, %v", status, ended, tt.status, tt.ended)
			}
			if tt.want == nil {
				res.Stages = nil // durations of torn markers mean nothing
			}
			if diff := cmp.Diff(tt.want, res.Stages); diff != "" {
				t.Errorf("stages (-want +got):\n%s", diff)
			}
		})
	}
}

// An archive that the guest did not finish changes nothing in the result.
func TestReadResult(t *testing.T) {
	path := filepath.Join(t.TempDir(), "result.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for name, text := range map[string]string{"markers": "npuemu-guest: 1.00 init\n", "result/a/b": "x\x00y"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	res := &Result{Files: map[string][]byte{}}
	var markers []string
	if err := readResult(path, res, &markers); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]byte{"a/b": []byte("x\x00y")}, res.Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"npuemu-guest: 1.00 init"}, markers); diff != "" {
		t.Errorf("markers (-want +got):\n%s", diff)
	}

	for _, size := range []int64{0, 700} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		res, markers := &Result{Files: map[string][]byte{}}, []string{"from the console"}
		if err := readResult(path, res, &markers); err == nil {
			t.Errorf("%d bytes: no error", size)
		}
		if len(res.Files) != 0 || len(markers) != 1 {
			t.Errorf("%d bytes: files %v, markers %q", size, res.Files, markers)
		}
	}
}

// Without a tool root tests skip, and in CI they fail.
func TestRequire(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips in any case")
	}
	t.Setenv("NPUEMU_CACHE", t.TempDir())
	for _, tt := range []struct{ ci, require, want string }{
		{"", "", "skip"}, {"true", "", "fail"}, {"", "1", "fail"},
	} {
		t.Setenv("CI", tt.ci)
		t.Setenv("NPUEMU_REQUIRE_GUEST", tt.require)
		tb := &outcome{TB: t}
		Require(tb)
		if tb.got != tt.want {
			t.Errorf("CI=%q NPUEMU_REQUIRE_GUEST=%q: %q, want %q", tt.ci, tt.require, tb.got, tt.want)
		}
	}
}

// outcome is a testing.TB that notes how a test would have ended.
type outcome struct {
	testing.TB
	got string
}

func (o *outcome) Fatal(...any) { o.got = "fail" }
func (o *outcome) Skip(...any)  { o.got = "skip" }
