// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npuemu/internal/uds"
	. "npuemu/tests/virtiotest"
	"npuemu/vdev/vhostuser"
)

// again connects the guest of f once more, over a region, with its queue where its own memory says, as QEMU does.
func again(t testing.TB, f *Front, socket string, features uint64, region *os.File, size uint64, q *Queue) *Front {
	t.Helper()
	g := Dial(t, socket)
	g.Adopt(f)
	g.Negotiate(features)
	g.Do(SetInflightFD, Inflight(size, 0, echoQueues, 8), int(region.Fd()))
	q.F = g
	base := uint32(q.UsedIndex())
	if features&Packed != 0 {
		base = q.Fresh() // QEMU has not heard of what was used since the start
	}
	q.Setup(base)
	q.Enable(true)
	return g
}

// takes checks that queue 2 has taken what, in that order.
func (e *echo) takes(t testing.TB, what ...string) {
	t.Helper()
	e.eventually(t, fmt.Sprint(what), func() bool { return len(e.kept) >= len(what) })
	e.get(func() {
		var got []string
		for _, r := range e.kept {
			got = append(got, string(r.In))
		}
		if fmt.Sprint(got) != fmt.Sprint(what) {
			t.Errorf("taken %q, want %q", got, what)
		}
	})
}

// TestReconnect: a connection is lost with requests in flight. Whoever serves next, the same process or another, takes them
// again in the order in which they were taken, each is used once, and what came later follows.
func TestReconnect(t *testing.T) {
	for _, feat := range []uint64{features, features | Packed} {
		for _, same := range []bool{true, false} {
			t.Run(fmt.Sprintf("%#x, same process %v", feat, same), func(t *testing.T) {
				e := newEcho(t)
				cfg := vhostuser.Config{DrainTimeout: 10 * time.Millisecond}
				socket := Serve(t, cfg, e)
				f := Dial(t, socket)
				f.Negotiate(feat)
				size, region := f.InflightRegion(echoQueues, 8)
				f.Do(SetInflightFD, Inflight(size, 0, echoQueues, 8), int(region.Fd()))
				q := f.Start(slowQueue, 8)
				answers := map[uint16]string{}
				out := map[uint16][]byte{}
				submit := func(what string) {
					id, a := q.Submit([]byte(what), len(what))
					answers[id], out[id] = what, a
				}
				collect := func(n int) {
					t.Helper()
					for range n {
						id, _, ok := q.Await(Timeout)
						if !ok || string(out[id]) != answers[id] || answers[id] == "" {
							t.Fatalf("answer %q to %q, %v", out[id], answers[id], ok)
						}
						delete(answers, id)
					}
				}
				for round := range 3 {
					for _, what := range []string{"a", "b", "c", "d"} {
						submit(what)
					}
					e.takes(t, "a", "b", "c", "d")
					e.get(func() { // out of order
						for _, i := range []int{3, 1} {
							e.note(e.kept[i].Complete(e.kept[i].In))
						}
					})
					collect(2)
					f.Close()
					e.eventually(t, "the end", func() bool { return e.front == nil })
					if !same {
						e = newEcho(t)
						socket = Serve(t, cfg, e)
					}
					f = again(t, f, socket, feat, region, size, q)
					e.takes(t, "a", "c")
					submit("e")
					e.takes(t, "a", "c", "e")
					e.finish()
					collect(3)
					if _, _, ok := q.Await(time.Millisecond); ok || len(answers) != 0 {
						t.Errorf("round %d: something is used twice, or lost: %q", round, answers)
					}
				}
				e.get(func() {
					if e.losts == 0 || e.keeps != 0 || e.faults != nil {
						t.Errorf("%d lives go on that were lost, %d were kept; faults %v", e.losts, e.keeps, e.faults)
					}
				})
			})
		}
	}
}

// TestKept: a connection is lost, and what was in flight ends in time: the driver's life goes on for the front end that
// has the region, and for no other.
func TestKept(t *testing.T) {
	for _, feat := range []uint64{features, features | Packed} {
		e := newEcho(t)
		socket := Serve(t, vhostuser.Config{}, e)
		f := Dial(t, socket)
		f.Negotiate(feat)
		size, region := f.InflightRegion(echoQueues, 8)
		f.Do(SetInflightFD, Inflight(size, 0, echoQueues, 8), int(region.Fd()))
		q := f.Start(slowQueue, 8)
		id, a := q.Submit([]byte("ping"), 4)
		e.takes(t, "ping")
		f.Close()
		time.Sleep(5 * time.Millisecond)
		e.finish()
		if got, n, ok := q.Await(Timeout); !ok || got != id || n != 4 || string(a) != "ping" {
			t.Errorf("%#x: what was in flight is not answered: %q, %v", feat, a, ok)
		}
		e.eventually(t, "the end", func() bool { return e.detaches == 1 })
		f = again(t, f, socket, feat, region, size, q)
		q.Submit([]byte("pong"), 4)
		e.takes(t, "pong")
		e.finish()
		q.Await(Timeout)
		e.get(func() {
			if e.keeps != 1 || e.starts != 1 || e.resets != 0 || e.losts != 0 {
				t.Errorf("%#x: %d kept, %d starts, %d resets, %d lost; the life should go on", feat, e.keeps, e.starts, e.resets, e.losts)
			}
		})
		f.Close()
		e.eventually(t, "the end", func() bool { return e.detaches == 2 })
		g := Dial(t, socket)
		g.Negotiate(feat)
		size, other := g.InflightRegion(echoQueues, 8)
		g.Do(SetInflightFD, Inflight(size, 0, echoQueues, 8), int(other.Fd()))
		works(g)
		e.get(func() {
			if e.keeps != 2 || e.starts != 2 || e.resets != 1 || e.losts != 0 {
				t.Errorf("%#x: %d kept, %d starts, %d resets, %d lost; another life should begin", feat, e.keeps, e.starts, e.resets, e.losts)
			}
		})
		g.Do(ResetDevice, nil) // and the region is void
		if v, err := version(other); v != 0 || err != nil {
			t.Errorf("%#x: the region has version %d after a reset, %v", feat, v, err)
		}
	}
}

func version(region *os.File) (uint16, error) {
	var b [2]byte
	_, err := region.ReadAt(b[:], 8)
	return binary.LittleEndian.Uint16(b[:]), err
}

// TestRegions: what a region says when a ring begins → what is taken, or the rule that the ring breaks. The driver has made
// three requests with two descriptors each available, and the ring is at its start.
func TestRegions(t *testing.T) {
	le := binary.LittleEndian
	type change struct {
		off int
		v   uint16
	}
	const head, entry = 32, 32 // packed
	// flying is entry i of a packed region in flight, with the descriptors of chain c.
	flying := func(p []byte, q *Queue, i, c int, counter uint64) {
		for k := range 2 {
			at := p[head+(i+k)*entry:]
			d := q.Desc[16*(2*c+k):]
			copy(at[16:18], d[12:14])
			copy(at[18:20], d[14:16])
			copy(at[20:24], d[8:12])
			copy(at[24:32], d[:8])
		}
		at := p[head+i*entry:]
		at[0] = 1
		le.PutUint16(at[4:], uint16(i+1))
		le.PutUint16(at[6:], 2)
		le.PutUint64(at[8:], counter)
	}
	init := func(p []byte) {
		for i := range 8 {
			le.PutUint16(p[head+i*entry+2:], uint16(i+1))
		}
		p[20], p[21] = 1, 1
	}
	for _, tt := range []struct {
		name    string
		packed  bool
		make    func(p []byte, q *Queue)
		changes []change
		want    string // taken, or the rule
		broken  bool
	}{
		{"empty", false, nil, nil, "abc", false},
		{"nothing in flight", false, nil, []change{{8, 1}, {10, 8}}, "abc", false},
		{"two in flight, the later one taken first", false, func(p []byte, q *Queue) {
			p[16], p[16+2*16] = 1, 1
			le.PutUint64(p[16+8:], 9)
			le.PutUint64(p[16+2*16+8:], 7)
		}, []change{{8, 1}, {10, 8}}, "bac", false},
		{"one used before the end, and not noted", false, func(p []byte, q *Queue) {
			p[16], p[16+2*16] = 1, 1
			le.PutUint64(p[16+2*16+8:], 1)
			le.PutUint16(q.Used[2:], 1)
		}, []change{{8, 1}, {10, 8}, {12, 0}}, "bc", false},
		{"version 2", false, nil, []change{{8, 2}, {10, 8}}, "in-flight region of version 2", true},
		{"another size", false, nil, []change{{8, 1}, {10, 16}}, "16 entries; SET_INFLIGHT_FD says 8", true},
		{"a batch that begins outside", false, func(p []byte, q *Queue) { le.PutUint16(q.Used[2:], 1) }, []change{{8, 1}, {10, 8}, {12, 8}}, "names entry 8 of 8", true},
		{"a batch that goes on outside", false, func(p []byte, q *Queue) { p[16] = 1; le.PutUint16(q.Used[2:], 2); le.PutUint16(p[16+6:], 99) },
			[]change{{8, 1}, {10, 8}}, "names entry 99 of 8", true},

		{"empty", true, nil, nil, "abc", false},
		{"nothing in flight", true, func(p []byte, q *Queue) { init(p) }, []change{{8, 1}, {10, 8}}, "abc", false},
		{"two in flight, the later one taken first", true, func(p []byte, q *Queue) {
			init(p)
			flying(p, q, 0, 1, 3)
			flying(p, q, 2, 0, 4)
		}, []change{{8, 1}, {10, 8}, {12, 4}, {14, 4}}, "bac", false},
		{"died before the chain was given back", true, func(p []byte, q *Queue) {
			init(p)
			flying(p, q, 0, 0, 0)
			le.PutUint16(p[head+entry+2:], 2)
		}, []change{{8, 1}, {10, 8}, {12, 0}, {14, 2}, {16, 2}, {18, 0}}, "abc", false},
		{"died after the chain was given back", true, func(p []byte, q *Queue) {
			init(p)
			flying(p, q, 0, 0, 0)
			le.PutUint16(p[head+entry+2:], 2)
			le.PutUint16(q.Desc[14:], Available|UsedUp)
		}, []change{{8, 1}, {10, 8}, {12, 0}, {14, 2}, {16, 2}, {18, 0}}, "bc", false},
		{"died while a chain was taken", true, func(p []byte, q *Queue) {
			init(p)
			flying(p, q, 0, 0, 0)
		}, []change{{8, 1}, {10, 8}, {12, 2}, {14, 0}}, "abc", false},
		{"version 2", true, nil, []change{{8, 2}, {10, 8}}, "in-flight region of version 2", true},
		{"another size", true, nil, []change{{8, 1}, {10, 7}}, "7 entries; SET_INFLIGHT_FD says 8", true},
		{"used index outside the ring", true, func(p []byte, q *Queue) { init(p) }, []change{{8, 1}, {10, 8}, {16, 8}, {18, 8}}, "goes on at 8", true},
		{"a chain of none", true, func(p []byte, q *Queue) { init(p); flying(p, q, 0, 0, 0); p[head+6] = 0 },
			[]change{{8, 1}, {10, 8}, {12, 2}, {14, 2}}, "chains with 0 descriptors", true},
		{"a chain of nine", true, func(p []byte, q *Queue) { init(p); flying(p, q, 0, 0, 0); p[head+6] = 9 },
			[]change{{8, 1}, {10, 8}, {12, 2}, {14, 2}}, "chains with 9 descriptors", true},
		{"more in flight than the ring has", true, func(p []byte, q *Queue) {
			init(p)
			for i := range 7 {
				flying(p, q, i, 0, 0)
			}
		}, []change{{8, 1}, {10, 8}, {12, 7}, {14, 7}}, "descriptors; the ring has 8", true},
		{"a chain that goes on outside", true, func(p []byte, q *Queue) { init(p); flying(p, q, 0, 0, 0); le.PutUint16(p[head+2:], 8) },
			[]change{{8, 1}, {10, 8}, {12, 2}, {14, 2}}, "names entry 8 of 8", true},
		{"a free list that loops", true, func(p []byte, q *Queue) { init(p); le.PutUint16(p[head+2:], 0) }, []change{{8, 1}, {10, 8}}, "abc", false},
	} {
		t.Run(fmt.Sprintf("%s, packed %v", tt.name, tt.packed), func(t *testing.T) {
			feat := uint64(features)
			if tt.packed {
				feat |= Packed
			}
			e := newEcho(t)
			f := Dial(t, Serve(t, vhostuser.Config{}, e))
			f.Negotiate(feat)
			file := Memfd(t, 4096)
			p := Mmap(t, file, 4096)
			part := p
			stride := (16 + 16*8 + 63) &^ 63
			if tt.packed {
				stride = (32 + 32*8 + 63) &^ 63
			}
			part = p[slowQueue*stride:]
			q := f.NewQueue(slowQueue, 8)
			for _, c := range []string{"a", "b", "c"} {
				q.Add(Desc{Addr: f.Put([]byte(c)), Len: 1}, Desc{Addr: f.Put(make([]byte, 1)), Len: 1, Flags: Write})
			}
			if tt.make != nil {
				tt.make(part, q)
			}
			for _, c := range tt.changes {
				le.PutUint16(part[c.off:], c.v)
			}
			f.Do(SetInflightFD, Inflight(4096, 0, echoQueues, 8), int(file.Fd()))
			q.Setup(q.Fresh())
			q.Enable(true)
			if tt.broken {
				e.eventually(t, "the fault", func() bool { return len(e.faults) > 0 })
				if got := e.faults[0].Error(); !strings.Contains(got, tt.want) {
					t.Errorf("%s, want %q", got, tt.want)
				}
			} else {
				e.takes(t, strings.Split(tt.want, "")...)
				e.get(func() {
					if e.faults != nil {
						t.Error(e.faults)
					}
				})
				e.finish()
			}
			works(f)
		})
	}
	t.Run("a ring larger than its part", func(t *testing.T) {
		e := newEcho(t)
		f := Dial(t, Serve(t, vhostuser.Config{}, e))
		f.Negotiate(features)
		f.Do(SetInflightFD, Inflight(4096, 0, 1, 8), int(Memfd(t, 4096).Fd()))
		f.Start(0, 16)
		e.eventually(t, "the fault", func() bool { return len(e.faults) == 1 })
		works(f) // queue 1 is not in the region
	})
	t.Run("a region whose file is truncated", func(t *testing.T) {
		e := newEcho(t)
		f := Dial(t, Serve(t, vhostuser.Config{}, e))
		f.Negotiate(features)
		file := Memfd(t, 4096)
		f.Do(SetInflightFD, Inflight(4096, 0, 1, 8), int(file.Fd()))
		q := f.Start(0, 8)
		q.Request([]byte("ping"), 4)
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		q.Submit([]byte("ping"), 4)
		e.eventually(t, "the fault", func() bool { return len(e.faults) == 1 })
		works(f)
	})
}

// TestProbe: a front end that only looks, between the end of a connection and the return of its front end, leaves the life
// of the driver alone.
func TestProbe(t *testing.T) {
	e := newEcho(t)
	socket := Serve(t, vhostuser.Config{}, e)
	f := Dial(t, socket)
	f.Negotiate(features)
	size, region := f.InflightRegion(echoQueues, 8)
	f.Do(SetInflightFD, Inflight(size, 0, echoQueues, 8), int(region.Fd()))
	q := f.Start(0, 8)
	q.Request([]byte("ping"), 4)
	f.Close()
	e.eventually(t, "the end", func() bool { return e.detaches == 1 })
	g := Dial(t, socket)
	g.Negotiate(features)
	_, other := g.InflightRegion(echoQueues, 8)
	g.Do(SetInflightFD, Inflight(size, 0, echoQueues, 8), int(other.Fd()))
	g.Close()
	e.eventually(t, "the end", func() bool { return e.detaches == 2 })
	again(t, f, socket, features, region, size, q)
	if got := q.Request([]byte("pong"), 4); string(got) != "pong" {
		t.Errorf("the echo of pong is %q", got)
	}
	e.get(func() {
		if e.keeps != 2 || e.starts != 1 || e.resets != 0 || e.losts != 0 {
			t.Errorf("%d kept, %d starts, %d resets, %d lost; the life should go on", e.keeps, e.starts, e.resets, e.losts)
		}
	})
}

// TestRegionChanges: a front end writes to an in-flight region that was believed once.
func TestRegionChanges(t *testing.T) {
	le := binary.LittleEndian
	for _, tt := range []struct {
		name   string
		change func(entry []byte)
		want   string
	}{
		{"longer", func(e []byte) { le.PutUint16(e[6:], 8) }, "has a chain with 8 descriptors"},
		{"shorter", func(e []byte) { le.PutUint16(e[6:], 1) }, "has a chain with 1 descriptors"},
		{"does not end", func(e []byte) { le.PutUint16(e[32+18:], 1) }, "where its descriptors say"},
		{"ends early", func(e []byte) { le.PutUint16(e[18:], 0) }, "where its descriptors say"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho(t)
			f := Dial(t, Serve(t, vhostuser.Config{DrainTimeout: 10 * time.Millisecond}, e))
			f.Negotiate(features | Packed)
			size, region := f.InflightRegion(echoQueues, 8)
			p := Mmap(t, region, int(size))
			f.Do(SetInflightFD, Inflight(size, 0, echoQueues, 8), int(region.Fd()))
			q := f.Start(slowQueue, 8)
			q.Submit([]byte("a"), 1)
			e.takes(t, "a")
			part := p[slowQueue*((32+32*8+63)&^63):]
			saved := append([]byte(nil), part[:32+32*8]...)
			q.Stop()
			q.Enable(false)
			copy(part, saved)
			q.Setup(q.Fresh())
			tt.change(part[32:])
			q.Enable(true)
			e.eventually(t, "the fault", func() bool { return len(e.faults) > 0 })
			if got := e.faults[0].Error(); !strings.Contains(got, tt.want) {
				t.Errorf("%s, want %q", got, tt.want)
			}
			works(f)
		})
	}
}

// TestRegionOfAnotherLayout: the front end chooses packed queues when it has a region for split ones, which is smaller.
func TestRegionOfAnotherLayout(t *testing.T) {
	e := newEcho(t)
	f := Dial(t, Serve(t, vhostuser.Config{}, e))
	f.Negotiate(features)
	size := uint64(echoQueues * ((16 + 16*1024 + 63) &^ 63))
	f.Do(SetInflightFD, Inflight(size, 0, echoQueues, 1024), int(Memfd(t, int64(size)).Fd()))
	f.Do(SetFeatures, U64(features|Packed|Protocol))
	f.Do(ResetDevice, nil)
	f.Do(SetFeatures, U64(features|Protocol))
	works(f)
}

const childSocket = "NPUEMU_TEST_ECHO_SOCKET" // makes this program an echo device on that socket

func TestMain(m *testing.M) {
	if socket := os.Getenv(childSocket); socket != "" {
		serveEcho(socket)
	}
	os.Exit(m.Run())
}

// serveEcho serves until it is killed.
func serveEcho(socket string) {
	e := &echo{wake: make(chan struct{}, 1)}
	go func() {
		for range e.wake {
			e.serve()
		}
	}()
	ln, err := uds.Listen(socket, nil)
	if err == nil {
		err = vhostuser.NewServer(vhostuser.Config{}, e).Serve(context.Background(), ln)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestKilled kills the back end at any point of its work, many times. The guest's requests are all used, once each.
func TestKilled(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for _, feat := range []uint64{features, features | Packed} {
		t.Run(fmt.Sprintf("%#x", feat), func(t *testing.T) {
			dir, err := os.MkdirTemp("", "npu")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(dir, "s")
			start := func() *exec.Cmd {
				cmd := exec.CommandContext(t.Context(), exe)
				cmd.Env = append(os.Environ(), childSocket+"="+socket)
				cmd.Stderr = os.Stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				for end := time.Now().Add(Timeout); ; time.Sleep(time.Millisecond) {
					if c, err := net.Dial("unix", socket); err == nil {
						_ = c.Close() // nothing was said
						return cmd
					}
					if time.Now().After(end) {
						t.Fatal("the back end does not start")
					}
				}
			}
			kill := func(cmd *exec.Cmd) {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()        // it was killed
				_ = os.Remove(socket) // Listen does it as well
			}
			rng := rand.New(rand.NewPCG(7, feat))
			cmd := start()
			f := Dial(t, socket)
			f.Negotiate(feat)
			size, region := f.InflightRegion(echoQueues, 8)
			f.Do(SetInflightFD, Inflight(size, 0, echoQueues, 8), int(region.Fd()))
			q := f.Start(0, 8)
			at, buffers := f.Alloc(8 * 16) // by the request's id
			want := map[uint16]byte{}      // by it as well
			used := 0
			collect := func(timeout time.Duration) bool {
				id, n, ok := q.Await(timeout)
				if !ok {
					return false
				}
				used++
				v, known := want[id]
				if got := buffers[16*id+8]; !known || n != 1 || got != v {
					t.Fatalf("request %d is used with %d, %d bytes; want %d, %v", id, got, n, v, known)
				}
				delete(want, id)
				return true
			}
			submit := func(v byte) {
				id := q.NextID()
				a := at + 16*uint64(id)
				buffers[16*id], buffers[16*id+8] = v, 0
				q.Add(Desc{Addr: a, Len: 1}, Desc{Addr: a + 8, Len: 1, Flags: Write})
				want[id] = v
				q.Kick.Signal()
			}
			made := 0
			for range rounds {
				for end := time.Now().Add(time.Duration(rng.IntN(3000)) * time.Microsecond); time.Now().Before(end); {
					for ; len(want) < 4; made++ {
						submit(byte(made))
					}
					for collect(0) {
					}
				}
				kill(cmd)
				f.Close()
				cmd = start()
				f = again(t, f, socket, feat, region, size, q)
			}
			for len(want) > 0 {
				if !collect(Timeout) {
					t.Fatalf("requests %v are lost", want)
				}
			}
			if collect(10 * time.Millisecond) {
				t.Error("a request is used twice")
			}
			kill(cmd)
			t.Logf("%d requests over %d back ends", used, rounds+1)
			if used != made || made < rounds {
				t.Errorf("%d requests made, %d used", made, used)
			}
		})
	}
}
