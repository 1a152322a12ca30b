// SPDX-License-Identifier: Apache-2.0

// Command models compiles whole networks, runs them on a card in this process and in the framework that they come from,
// in turns, compares results and times, and writes docs/models.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"npuemu/tests/bench/machine"
	harness "npuemu/tests/compiler"
	"npuemu/vdev"
)

const (
	page     = "docs/models.md"
	sources  = "tests/models"
	testdata = sources + "/testdata"
)

// network is a model that sources/generate.py makes, and what is asked of it.
type network struct {
	name  string
	title string
	what  string  // shape and weights, for the page
	most  float64 // what an output may differ by: steps of its quantization, or of floating point a part of the largest
}

// Weights that are drawn from a seed cannot have an accuracy; the framework's results are what they are compared with.
var networks = []network{
	{"digits", "digits", "8×8 pixels, two convolutions, one dense layer, int8; weights of `examples/digits`, trained on UCI's digits", 0},
	{"lenet", "LeNet", "28×28 pixels, Caffe's LeNet, int8; trained here on the same digits, enlarged", 0},
	{"keywords", "keyword spotter", "DS-CNN, 49×10 MFCC, 64 channels, 12 classes, int8; weights from a seed", 0},
	{"mobilenet_v1", "MobileNetV1", "224×224, width 1.0, int8; weights from a seed", 0},
	{"mobilenet_v2", "MobileNetV2", "224×224, width 1.0, int8; weights from a seed", 32},
	{"resnet18", "ResNet-18", "224×224, int8; weights from a seed", 16},
	{"resnet50", "ResNet-50", "224×224, int8; weights from a seed", 24},
	{"mobilenet_v2_integers", "MobileNetV2, operators", "the MobileNetV2 above, quantized to operators of integers (QLinearConv, QLinearAdd …)", 0},
	{"resnet18_integers", "ResNet-18, operators", "likewise", 0},
	{"resnet50_integers", "ResNet-50, operators", "likewise", 0},
	{"block_fp32", "transformer block, fp32", "128 rows of 256, 4 heads, 1024 hidden, layer normalization, softmax, GELU by erf; weights from a seed", 1e-5},
	{"block_fp16", "transformer block, fp16", "the same block; input and output are fp32", 1e-2},
	{"block_bf16", "transformer block, bf16", "the same block; compared with the framework's fp32, since its processor path has no bf16", 5e-2},
	{"block_int8", "transformer block, int8", "the same block, quantized", 6},
	{"decode_gather", "decode step", "a token through 4 layers of 128, 4 heads, a cache of 64 places, 512 words, RMS normalization, rotary positions, gated MLP, fp32; weights from a seed", 1e-4},
	{"decode_product", "decode step, one-hot", "the same step, with the embedding looked up by a product with a one-hot row", 1e-4},
}

func main() {
	npuemu := flag.String("npuemu", "bin/npuemu", "the npuemu `binary`, which compiles")
	rounds := flag.Int("rounds", 0, "`turns` of card and framework (default: for 6 s, 15 to 201, fewer where they take a minute)")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: models [flags] [NAME ...]\n\nMeasures networks beside ONNX Runtime, in the top of the tree. Without a NAME all of them, and writes "+page+".\nThe first run fetches wheels (100 MB) into the cache. Names: "+strings.Join(names(), ", ")+". Flags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := models(ctx, *npuemu, *rounds, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "models: FAILED:", err)
		os.Exit(1)
	}
}

func names() []string {
	var l []string
	for _, n := range networks {
		l = append(l, n.name)
	}
	return l
}

func progress(format string, a ...any) { fmt.Fprintf(os.Stderr, "models: "+format+"\n", a...) }

func models(ctx context.Context, npuemu string, rounds int, only []string) (err error) {
	for _, name := range only {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("there is no model %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	setup := exec.CommandContext(ctx, sources+"/setup.sh")
	setup.Stderr = os.Stderr
	out, err := setup.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", setup.Path, err)
	}
	dir := strings.TrimSpace(string(out))
	python := filepath.Join(dir, "python/bin/python")
	card, err := harness.NewCard(ctx, vdev.DefaultConfig())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, card.Close()) }()
	f, err := startFramework(ctx, python, dir, runtime.GOMAXPROCS(0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	busy := machine.Load()
	var results []*result
	for _, n := range networks {
		if len(only) > 0 && !slices.Contains(only, n.name) {
			continue
		}
		progress("%s: model, unless it is there …", n.title)
		generate := exec.CommandContext(ctx, python, "-W", "ignore", sources+"/generate.py", dir, n.name)
		generate.Env = append(os.Environ(), "OPENBLAS_NUM_THREADS=1") // sums have one order, whatever the machine has
		if out, err := generate.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: generate.py: %w\n%s", n.name, err, out)
		}
		r, err := measure(ctx, card, f, python, npuemu, dir, n, rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		progress("%s: %s", n.title, r.agreement)
		results = append(results, r)
	}
	if len(only) > 0 {
		fmt.Print(tables(results))
		return nil
	}
	for _, name := range []string{"digits", "keywords"} { // which the test of this directory compiles
		b, err := os.ReadFile(filepath.Join(dir, name+".onnx"))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(testdata, name+".onnx"), b, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(page, []byte(document(results, f.version, busy)), 0o644)
}
