// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLibvfioUserClient runs libvfio-user's sample client, as it is, against
// examples/alarm: negotiation, information, DMA, the log of written pages, and a
// migration to a second server of ours, which the client starts itself.
//
// It forks, becomes that server in the process that we started, and goes on as
// its child. This process adopts the child when the server has ended, and takes its status.
func TestLibvfioUserClient(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 11 s; not with -short")
	}
	samples := libvfioUser()
	if samples == "" {
		t.Skip("NPUEMU_LIBVFIO_USER does not name libvfio-user's samples (docs/testing.md)")
	}
	program, err := filepath.Abs(filepath.Join(samples, "client"))
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := socketDir(t)
	source, client, socket := filepath.Join(dir, "server"), filepath.Join(dir, "client"), filepath.Join(dir, "sock")
	build(t, "npuemu/examples/alarm/server", source)
	if err := os.Symlink(program, client); err != nil {
		t.Fatal(err)
	}
	src := serve(t, socket, source, "-v", socket)

	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	out := new(output)
	cmd := exec.Command(client, socket)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Minute // the child has our pipe, too
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	group := cmd.Process.Pid
	giveUp := time.AfterFunc(2*time.Minute, func() { _ = unix.Kill(-group, unix.SIGKILL) })
	defer giveUp.Stop()
	serverErr := cmd.Wait()
	var status unix.WaitStatus
	for {
		_, err = unix.Wait4(-group, &status, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	switch {
	case err != nil:
		t.Errorf("the client did not get as far as its second server: %v, %v", serverErr, err)
	case status != 0:
		t.Errorf("the client ended with status %#x (exit %d, signal %d)", status, status.ExitStatus(), status.Signal())
	}
	if serverErr != nil {
		t.Errorf("the second server: %v", serverErr)
	}

	// What the client's status does not tell, its own words and the servers' log do.
	for _, want := range []struct {
		in    *output
		text  string
		times int
	}{
		{out, "client: INTx triggered!", 2},
		{src, `"DMA done" by=mapping`, 1}, {src, `"DMA done" by=messages`, 1},
		{out, `"DMA done" by=mapping`, 1}, {out, `"DMA done" by=messages`, 1},
		{src, "from=RUNNING to=PRE_COPY", 1}, {src, "from=PRE_COPY to=STOP_COPY", 1}, {src, "from=STOP_COPY to=STOP", 1},
		{out, "from=STOP to=RESUMING", 1}, {out, "from=RESUMING to=STOP", 1}, {out, "from=STOP to=RUNNING", 1},
		{src, "level=WARN", 1}, // the region 0xdeadbeef that the client tries
		{out, "level=WARN", 0},
	} {
		if n := strings.Count(want.in.String(), want.text); n != want.times {
			t.Errorf("%q is said %d times, want %d", want.text, n, want.times)
		}
	}
	if t.Failed() {
		t.Logf("client and second server printed:\n%s", out)
	}
}
