// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	"npuemu/internal/control"
	"npuemu/internal/uds"
	"npuemu/mmio/npureg"
	"npuemu/vdev"
	"npuemu/vdev/ioat"
	"npuemu/vdev/vfiouser"
	"npuemu/vdev/vhostuser"
)

const (
	configUsage = "TOML `file` with the card's configuration (default: npuemu info --defaults)"
	logUsage    = "least `level` that is logged: debug, info, warn, error"
)

func archUsage() string {
	return fmt.Sprintf("architecture `version` to present, one of %v", vdev.Arches())
}

// newLog returns the log that --log asks for.
func newLog(w io.Writer, level string) (*slog.Logger, error) {
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log %q: use debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: lv})), nil
}

// configFlags are the flags that choose a card.
type configFlags struct {
	file, arch string
}

func (f *configFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.file, "config", "", configUsage)
	c.Flags().StringVar(&f.arch, "arch", "", archUsage())
	_ = c.RegisterFlagCompletionFunc("arch", cobra.FixedCompletions(vdev.Arches(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.MarkFlagFilename("config", "toml")
}

// load returns the configuration that the flags ask for.
func (f *configFlags) load() (vdev.Config, error) {
	cfg := vdev.DefaultConfig()
	if f.file != "" {
		b, err := os.ReadFile(f.file)
		if err != nil {
			return cfg, fmt.Errorf("configuration: %w", err)
		}
		if cfg, err = vdev.ParseConfig(b); err != nil {
			return cfg, fmt.Errorf("%s: %w", f.file, err)
		}
	}
	if f.arch != "" {
		cfg.Arch = f.arch
	}
	return cfg, cfg.Validate()
}

// serveFlags are what serve is told besides the card.
type serveFlags struct {
	device     string
	sockets    []string
	configs    []string // none, one for all, or one for each socket
	transports []string // one for all, or one for each socket
	arch       string
	time       string
	level      string
	control    string
	once       bool
	mode       string
	group      string
	users      []string
	groups     []string
	touch      bool
	touchSet   bool // on the command line
	debug      debugFlags
}

func serveCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve --socket PATH",
		Short: "Be the card: wait for a VMM on a vfio-user or vhost-user socket",
		Long: "serve presents one NPU on a UNIX socket, until SIGINT or SIGTERM. One client is served at a\n" +
			"time; when it leaves, the card is reset and keeps only its device memory.\n\n" +
			"QEMU 10.1 or later needs shared guest memory and the device in JSON form:\n\n" +
			"  -object memory-backend-memfd,id=mem,size=1G,share=on -machine q35,memory-backend=mem\n" +
			"  -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"path\":\"PATH\",\"type\":\"unix\"}}'\n\n" +
			"With --transport vhost-user the NPU is a virtio device (docs/spec/virtio-npu.md), for QEMU 11.1 or later:\n\n" +
			"  -chardev socket,id=npu,path=PATH\n" +
			fmt.Sprintf("  -device vhost-user-test-device-pci,chardev=npu,virtio-id=%d,num_vqs=%d,vq_size=256,config_size=%d\n\n", vdev.VirtioIDInQEMU, vdev.DefaultConfig().Queues.Count+2, vdev.VirtioConfigSize) +
			"num_vqs is the card's user queues and 2. In the guest the same driver, npu.ko, serves both; there it needs no\n" +
			"firmware file.\n\n" +
			"Several cards: give --socket once for each. --config and --transport hold for all cards when given once, and\n" +
			"otherwise are given once for each --socket, in the same order. Cards of one configuration count its serial\n" +
			"number up. The cards share nothing but the process.\n\n" +
			"Who may connect is master of the card. A socket is its user's alone (mode 0600) unless --socket-mode and\n" +
			"--socket-group open it; with --allow-user or --allow-group the kernel's word on the connecting process\n" +
			"(SO_PEERCRED) must name one of those users, or one of those groups as its primary group, as well.\n\n" +
			"Behind a guest's IOMMU (-device intel-iommu,caching-mode=on,intremap=on before the card, or virtio-iommu-pci) an\n" +
			"access to what the guest has not mapped fails, leaves a finding, and is repeated as a message of one byte, so that\n" +
			"the guest's kernel logs the fault; --touch=false, or [pci] touch = false, leaves the message out.\n\n" +
			"--gdb lets GDB debug the firmware, --cp-trace writes down what its processor does (docs/debugging.md). They are\n" +
			"given once for each card, in the order of --socket, or less often; - leaves a card out. Virtual functions have neither.\n\n" +
			"A configuration with [sriov] vfs = N makes the card a physical function, on PATH, with N virtual functions, on\n" +
			"PATH.vf0 and up, which take clients while the function exists (docs/spec/pci.md §1.9). Experimental.\n\n" +
			"With --device ioat it is no NPU but a copy engine, for tests of VFIO and of VMMs with drivers that every Linux has:\n" +
			"ioatdma, and the kernel's VFIO selftests (docs/ioat.md). It has no --config, --arch and --control, and speaks vfio-user.",
		Example: "  npuemu serve --socket /tmp/npu.sock\n" +
			"  npuemu serve --socket /tmp/npu.sock --config card.toml --log debug --once\n" +
			"  npuemu serve --socket /tmp/npu.sock --gdb :1234\n" +
			"  npuemu serve --socket a.sock --socket b.sock --config small.toml --config large.toml\n" +
			"  npuemu serve --device ioat --socket /tmp/ioat.sock\n" +
			"  npuemu serve --socket /run/npu.sock --socket-mode 0660 --socket-group kvm --allow-user libvirt-qemu",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := newLog(c.ErrOrStderr(), f.level)
			if err != nil {
				return err
			}
			f.touchSet = c.Flags().Changed("touch")
			if err := f.checkDevice(); err != nil {
				return err
			}
			cards, err := f.cards(log)
			if err != nil {
				return err
			}
			if err := f.debug.check(len(cards)); err != nil {
				return err
			}
			return serve(c.Context(), log, cards, f.debug, f.control, f.once)
		},
	}
	c.Flags().StringVar(&f.device, "device", deviceNPU, "what is plugged in, `npu` or ioat")
	c.Flags().StringArrayVar(&f.sockets, "socket", nil, "`path` of the UNIX socket to listen on (required); repeat it for more cards")
	c.Flags().StringArrayVar(&f.transports, "transport", []string{"vfio-user"}, "what the socket speaks, `vfio-user` or vhost-user")
	c.Flags().StringArrayVar(&f.configs, "config", nil, configUsage)
	c.Flags().StringVar(&f.arch, "arch", "", archUsage())
	c.Flags().StringVar(&f.time, "time", "", "time `mode`: fast, timed, or paced[:FACTOR], wall time for model time (docs/spec/timing.md §13.8); overrides [time]")
	c.Flags().StringVar(&f.level, "log", "info", logUsage)
	c.Flags().StringVar(&f.control, "control", "", "`path` of a UNIX socket for npuemu ctl; only this user's processes may command")
	c.Flags().BoolVar(&f.once, "once", false, "exit when the first client, of each card, has left")
	c.Flags().StringVar(&f.mode, "socket-mode", "0600", "permissions of the sockets, `octal`")
	c.Flags().StringVar(&f.group, "socket-group", "", "`group` of the sockets, a name or number")
	c.Flags().StringArrayVar(&f.users, "allow-user", nil, "`user` whose processes may attach, a name or number; may be repeated")
	c.Flags().StringArrayVar(&f.groups, "allow-group", nil, "`group` whose processes may attach, a name or number; may be repeated")
	c.Flags().BoolVar(&f.touch, "touch", true, "show the VMM accesses that it has not mapped, for its IOMMU's log of faults; overrides pci.touch")
	f.debug.add(c)
	_ = c.MarkFlagRequired("socket")
	_ = c.MarkFlagFilename("config", "toml")
	_ = c.RegisterFlagCompletionFunc("device", cobra.FixedCompletions(devices, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("transport", cobra.FixedCompletions([]string{"vfio-user", "vhost-user"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("arch", cobra.FixedCompletions(vdev.Arches(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("log", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// card is one device to be served, and where.
type card struct {
	device            string
	cfg               vdev.Config
	transport, socket string
	mode              fs.FileMode
	group             int // of the socket; -1 leaves it
	access            uds.Access
}

// cards reads the flags and the files they name. Nothing has been started when it fails.
func (f *serveFlags) cards(log *slog.Logger) ([]card, error) {
	mode, err := strconv.ParseUint(f.mode, 8, 32)
	if err != nil || mode > 0o777 {
		return nil, fmt.Errorf("--socket-mode %q: use an octal number up to 0777", f.mode)
	}
	all := card{device: f.device, mode: fs.FileMode(mode), group: -1}
	if f.group != "" {
		gid, err := groupID("--socket-group", f.group)
		if err != nil {
			return nil, err
		}
		all.group = int(gid)
	}
	for _, name := range f.users {
		uid, err := userID("--allow-user", name)
		if err != nil {
			return nil, err
		}
		all.access.Users = append(all.access.Users, uid)
	}
	for _, name := range f.groups {
		gid, err := groupID("--allow-group", name)
		if err != nil {
			return nil, err
		}
		all.access.Groups = append(all.access.Groups, gid)
	}
	n := len(f.sockets)
	if len(f.configs) > 1 && len(f.configs) != n {
		return nil, fmt.Errorf("--config is given %d times and --socket %d times: give it once for all cards, or once for each", len(f.configs), n)
	}
	if len(f.transports) > 1 && len(f.transports) != n {
		return nil, fmt.Errorf("--transport is given %d times and --socket %d times: give it once for all cards, or once for each", len(f.transports), n)
	}
	cards := make([]card, 0, n)
	for i, socket := range f.sockets {
		if slices.Contains(f.sockets[:i], socket) {
			return nil, fmt.Errorf("--socket %s is given twice: every card needs a socket of its own", socket)
		}
		c := all
		c.socket = socket
		c.transport = f.transports[min(i, len(f.transports)-1)]
		if c.transport != "vfio-user" && c.transport != "vhost-user" {
			return nil, fmt.Errorf("--transport %q: use vfio-user or vhost-user", c.transport)
		}
		cf := configFlags{arch: f.arch}
		if len(f.configs) > 0 {
			cf.file = f.configs[min(i, len(f.configs)-1)]
		}
		var err error
		if c.cfg, err = cf.load(); err != nil {
			return nil, err
		}
		if c.cfg.SRIOV.VFs > 0 && (c.transport != "vfio-user" || f.once) {
			return nil, fmt.Errorf("sriov.vfs is %d: use --transport vfio-user, and not --once: virtual functions are PCI, and nobody knows which client comes first", c.cfg.SRIOV.VFs)
		}
		if f.touchSet {
			c.cfg.PCI.Touch = f.touch
		}
		if f.time != "" {
			if c.cfg.Time, err = vdev.ParseTime(f.time); err != nil {
				return nil, fmt.Errorf("--time %w", err)
			}
		}
		c.cfg.Log = log
		if n > 1 {
			c.cfg.Log = log.With("card", socket)
		}
		if len(f.configs) < 2 {
			c.cfg.Serial += uint64(i)
		}
		cards = append(cards, c)
	}
	return cards, nil
}

// userID and groupID return the number of a user or group that flag names.
func userID(flag, name string) (uint32, error) {
	id := name
	if u, err := user.Lookup(name); err == nil {
		id = u.Uid
	}
	return number(flag, "user", name, id)
}

func groupID(flag, name string) (uint32, error) {
	id := name
	if g, err := user.LookupGroup(name); err == nil {
		id = g.Gid
	}
	return number(flag, "group", name, id)
}

func number(flag, kind, name, id string) (uint32, error) {
	// The last number is the kernel's "leave it as it is".
	if n, err := strconv.ParseUint(id, 10, 32); err == nil && n != math.MaxUint32 {
		return uint32(n), nil
	}
	return 0, fmt.Errorf("%s %q: there is no such %s; use a name that this system knows, or a number", flag, name, kind)
}

// A server presents a card to clients (package vdev/vfiouser, vdev/vhostuser).
type server interface {
	Serve(ctx context.Context, ln uds.Acceptor) error
	ServeConn(ctx context.Context, nc *net.UnixConn) error
}

// listen opens a socket of the card: its own, or that of one of its virtual functions.
func (c *card) listen(path string) (*uds.Listener, error) {
	return uds.Listen(path, func(name string) (err error) {
		if c.group >= 0 {
			err = os.Chown(name, -1, c.group)
		}
		if err = errors.Join(err, os.Chmod(name, c.mode)); err != nil {
			return fmt.Errorf("socket: %w; check --socket-mode and --socket-group", err)
		}
		return nil
	})
}

// serve runs cards until ctx is done, one of them fails, or, with once, the first
// client of each has left. It starts all or none. controlPath is that of the control socket, or "".
func serve(ctx context.Context, log *slog.Logger, cards []card, debug debugFlags, controlPath string, once bool) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var blocks sync.WaitGroup // the cards' loops
	run := func(f func(context.Context)) {
		blocks.Add(1)
		go func() { defer blocks.Done(); f(ctx) }()
	}
	var devices []*vdev.Device
	var traces []func() error
	defer func() {
		stop()
		blocks.Wait()
		for i, d := range devices {
			for _, f := range d.Functions() {
				report(cards[i].cfg.Log, f)
			}
			err = errors.Join(err, d.Close())
		}
		for _, closeTrace := range traces {
			err = errors.Join(err, closeTrace())
		}
	}()
	var serving []func() error
	for i := range cards {
		c := &cards[i]
		if c.device == deviceIOAT {
			d, err := ioat.New(c.cfg.Log)
			if err != nil {
				return err
			}
			ln, err := c.listen(c.socket)
			if err != nil {
				return err
			}
			defer ln.Close() // for a later card that cannot start
			defer reportIOAT(c.cfg.Log, d)
			run(d.Run)
			srv := vfiouser.NewServer(vfiouser.Config{Log: c.cfg.Log, Access: c.access}, d)
			c.cfg.Log.Info("listening", "device", c.device, "transport", c.transport, "socket", c.socket)
			serving = append(serving, serveTask(ctx, srv, ln, once))
			continue
		}
		d, err := vdev.New(c.cfg)
		if err != nil {
			return err
		}
		devices = append(devices, d)
		closeTrace, err := debug.start(c.cfg.Log, i, d, run)
		traces = append(traces, closeTrace)
		if err != nil {
			return err
		}
		run(d.Run)
		for n, f := range d.Functions() {
			socket := c.socket
			if n > 0 {
				socket += fmt.Sprintf(".vf%d", n-1)
			}
			ln, err := c.listen(socket)
			if err != nil {
				return err
			}
			defer ln.Close() // for a later card that cannot start
			var srv server = vfiouser.NewServer(vfiouser.Config{Log: c.cfg.Log, Access: c.access, Admit: f.Admit}, f)
			if c.transport == "vhost-user" {
				v := vdev.NewParavirt(f)
				run(v.Run)
				srv = vhostuser.NewServer(vhostuser.Config{Log: c.cfg.Log, Access: c.access, NoMemSlots: c.cfg.Memory.Window}, v)
			}
			c.cfg.Log.Info("listening", "transport", c.transport, "socket", socket, "arch", c.cfg.Arch,
				"array", fmt.Sprintf("%dx%d", c.cfg.Array.Rows, c.cfg.Array.Cols), "memory", c.cfg.Memory.Size)
			serving = append(serving, serveTask(ctx, srv, ln, once))
		}
	}
	if controlPath != "" {
		ln, err := control.Listen(controlPath)
		if err != nil {
			return fmt.Errorf("--control: %w", err)
		}
		var functions [][]*vdev.Device
		for _, d := range devices {
			functions = append(functions, d.Functions())
		}
		s := &control.Server{Commands: controlCommands(functions), Log: log}
		run(func(ctx context.Context) {
			if err := s.Serve(ctx, ln); err != nil {
				log.Error("the control socket is lost; the cards go on", "error", err)
			}
		})
	}
	ended := make(chan error, len(serving))
	for _, s := range serving {
		go func() { ended <- s() }()
	}
	for range serving {
		e := <-ended
		if e == nil || errors.Is(e, context.Canceled) {
			continue // SIGTERM is how a card is switched off
		}
		err = errors.Join(err, e)
		if !once {
			stop() // a socket is broken: the operator wants to know now
		}
	}
	return err
}

// serveTask returns what serves a listener: until ctx is done, or, with once, until its first client has left.
func serveTask(ctx context.Context, srv server, ln uds.Acceptor, once bool) func() error {
	return func() error {
		if once {
			return serveOne(ctx, srv, ln)
		}
		return srv.Serve(ctx, ln)
	}
}

// serveOne serves the first client that comes.
func serveOne(ctx context.Context, srv server, ln uds.Acceptor) error {
	nc, err := accept(ctx, ln)
	if err != nil {
		return err
	}
	defer ln.Close()
	return srv.ServeConn(ctx, nc)
}

// report logs what the card did and what guests did wrong.
func report(log *slog.Logger, d *vdev.Device) {
	log.Info("switched off", "commands", d.Counter(npureg.CounterCommands), "errors", d.Counter(npureg.CounterErrors),
		"programs", d.Counter(npureg.CounterPrograms), "macs", d.Counter(npureg.CounterMACs), "interrupts", d.Counter(npureg.CounterInterrupts))
	for _, f := range d.Findings() {
		log.Info("finding", "id", f.ID, "count", f.Count, "rule", f.Rule, "last", f.Last)
	}
}

// accept takes one connection, or returns ctx's error.
func accept(ctx context.Context, ln uds.Acceptor) (*net.UnixConn, error) {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	nc, err := ln.AcceptUnix()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nc, err
}
