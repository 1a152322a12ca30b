// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command jobbench measures what a program in the guest sees of the device, and prints one JSON object:
// samples in microseconds by name, and rates in commands a second by name.
//
//	jobbench -samples N -jobs N -hangs N
//
// Latencies run from just before the ioctl that submits a job of one command:
//
//	nop-wait    NOP; until the wait for its syncobj returns: interrupt, driver, fence, wake-up
//	copy-wait   COPY of 8 bytes from and to host memory; the same
//	copy-poll   the same COPY; until the program, which does nothing but read the word that
//	            the COPY stores, finds it there
//	fence-poll  NOP; until the program, which does nothing but ask the driver for its
//	            syncobj without waiting, is told that it is signalled
//
// Rates are NOPs that completed, on 1, 8 and 64 queues; each queue has up to 4 jobs under way, of one command
// (single-N) or of as many as a job may have (full-N).
//
// Recovery: a COPY that takes hours, on a queue with a timeout of 1 s.
//
//	hang        from the submission until the job's end was told, less the timeout
//	recovery    from there until a NOP on the same queue, submitted then, has succeeded
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"npuemu/accel"
)

const (
	depth       = 4           // jobs under way on a queue
	limit       = time.Second // the timeout of a queue, for hangs
	settled     = 20          // samples that come first and do not count
	waitForever = 5 * time.Minute
)

type report struct {
	Samples map[string][]float64 `json:"samples"` // µs
	Rates   map[string][]float64 `json:"rates"`   // commands a second
}

func main() {
	samples := flag.Int("samples", 500, "`number` of each latency")
	jobs := flag.Int("jobs", 2000, "`number` of jobs of each rate")
	rounds := flag.Int("rounds", 3, "`number` of each rate")
	hangs := flag.Int("hangs", 5, "`number` of hangs")
	flag.Parse()
	r := report{map[string][]float64{}, map[string][]float64{}}
	if err := run(&r, *samples, *jobs, *rounds, *hangs); err != nil {
		fmt.Fprintln(os.Stderr, "jobbench:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, "jobbench:", err)
		os.Exit(1)
	}
}

// run opens the device for each part anew: a file that is open keeps its queue from others.
func run(r *report, samples, jobs, rounds, hangs int) error {
	for _, part := range []struct {
		name string
		do   func(*accel.Device) error
	}{
		{"latencies", func(d *accel.Device) error { return r.latencies(d, samples) }},
		{"rates", func(d *accel.Device) error { return r.rates(d, jobs, rounds) }},
		{"hangs", func(d *accel.Device) error { return r.hangs(d, hangs) }},
	} {
		d, err := accel.Open()
		if err == nil {
			err = errors.Join(part.do(d), d.Close())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// latencies take turns, so that a slow moment of the machine meets all alike.
func (r *report) latencies(d *accel.Device, samples int) error {
	b, err := d.NewBuffer(accel.SystemMemory, 4096)
	if err != nil {
		return err
	}
	mem, err := b.Map()
	if err != nil {
		return err
	}
	word := (*atomic.Uint64)(unsafe.Pointer(&mem[64])) // what the COPY stores, while nobody else writes
	nop := []accel.Command{accel.Nop{}}
	move := []accel.Command{accel.Copy{Src: b, Dst: b, DstOffset: 64, Bytes: 8}}
	wait := func(j *accel.Job) error { return j.Sync.Wait(context.Background()) }
	for i := range samples + settled {
		for _, kind := range []struct {
			name     string
			commands []accel.Command
			end      func(*accel.Job) error
		}{
			{"nop-wait", nop, wait},
			{"copy-wait", move, wait},
			{"copy-poll", move, func(*accel.Job) error {
				for end := time.Now().Add(waitForever); word.Load() != uint64(i+1); {
					if time.Now().After(end) {
						return errors.New("the word does not come")
					}
				}
				return nil
			}},
			{"fence-poll", nop, func(j *accel.Job) error {
				for {
					if done, err := j.Sync.Done(); done || err != nil {
						return err
					}
				}
			}},
		} {
			word.Store(0)
			binary.NativeEndian.PutUint64(mem, uint64(i+1))
			start := time.Now()
			j, err := d.Queue().Submit(accel.Submission{Commands: kind.commands})
			if err == nil {
				err = kind.end(j)
			}
			took := time.Since(start)
			if err == nil {
				_, err = j.Wait(context.Background())
			}
			if err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			if i >= settled {
				r.sample(kind.name, took)
			}
		}
	}
	return b.Close()
}

func (r *report) sample(name string, took time.Duration) {
	r.Samples[name] = append(r.Samples[name], float64(took.Nanoseconds())/1000)
}

func (r *report) rates(d *accel.Device, jobs, rounds int) error {
	for range rounds {
		for _, n := range []int{1, 8, 64} {
			for _, full := range []bool{false, true} {
				if err := r.rate(d, n, jobs, full); err != nil {
					return fmt.Errorf("%d queues: %w", n, err)
				}
			}
		}
	}
	return nil
}

// rate keeps n queues busy.
func (r *report) rate(d *accel.Device, n, jobs int, full bool) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	name, commands := "single", []accel.Command{accel.Nop{}}
	if full {
		name, jobs = "full", jobs/8
		for len(commands) < int(info.MaxCommands) {
			commands = append(commands, accel.Nop{})
		}
	}
	jobs = max(jobs, 2*depth*n)
	queues := make([]*accel.Queue, n)
	for i := range queues {
		if queues[i], err = d.NewQueue(accel.QueueConfig{}); err != nil {
			return err
		}
		if _, err := queues[i].Run(context.Background(), accel.Nop{}); err != nil {
			return err
		}
	}
	before, err := d.Counters()
	if err != nil {
		return err
	}
	under := make([]*accel.Job, 0, jobs)
	start := time.Now()
	for i := range jobs {
		if old := i - depth*n; old >= 0 { // the oldest job of the queue whose turn it is
			if err := under[old].Sync.Wait(context.Background()); err != nil {
				return err
			}
		}
		j, err := queues[i%n].Submit(accel.Submission{Commands: commands})
		if err != nil {
			return err
		}
		under = append(under, j)
	}
	for _, j := range under[len(under)-min(len(under), depth*n):] {
		if err := j.Sync.Wait(context.Background()); err != nil {
			return err
		}
	}
	took := time.Since(start)
	after, err := d.Counters()
	if err != nil {
		return err
	}
	if c := after.Since(before); c.Commands != uint64(jobs*len(commands)) || c.Errors != 0 {
		return fmt.Errorf("the device counted %d commands with %d errors, want %d without", c.Commands, c.Errors, jobs*len(commands))
	}
	for _, q := range queues {
		if err := q.Close(); err != nil {
			return err
		}
	}
	name = fmt.Sprintf("%s-%d", name, n)
	r.Rates[name] = append(r.Rates[name], float64(jobs*len(commands))/took.Seconds())
	return nil
}

func (r *report) hangs(d *accel.Device, n int) error {
	b, err := d.NewBuffer(accel.SystemMemory, 4096)
	if err != nil {
		return err
	}
	q, err := d.NewQueue(accel.QueueConfig{Timeout: limit})
	if err != nil {
		return err
	}
	for range n {
		if _, err := q.Run(context.Background(), accel.Nop{}); err != nil {
			return err
		}
		start := time.Now()
		_, err = q.Run(context.Background(), accel.Copy{Src: b, Dst: b, Bytes: 4096, Rows: 65535, Planes: 65535})
		hung := time.Since(start)
		if !errors.Is(err, unix.ETIMEDOUT) {
			return fmt.Errorf("a copy that takes hours: %w", err)
		}
		if _, err := q.Run(context.Background(), accel.Nop{}); err != nil {
			return fmt.Errorf("after it: %w", err)
		}
		r.sample("hang", hung-limit)
		r.sample("recovery", time.Since(start)-hung)
	}
	return errors.Join(q.Close(), b.Close())
}
