# SPDX-License-Identifier: Apache-2.0
GO            ?= go
GOLANGCI      ?= $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.5.0
GOFUMPT       ?= $(GO) run mvdan.cc/gofumpt@v0.9.1
FUZZTIME      ?= 60s
VERSION       ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n "s/^\([a-z0-9-]*\):.*\#\# .*/\1/p" $(firstword $(MAKEFILE_LIST)))

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## Set up everything, boot Linux in QEMU and classify handwritten digits on the NPU
	@$(GO) run ./tests/demo

test: setup-kselftest ## Set up everything, then all tests: unit, protocol and guest
	@tests/run-all

build: ## Build bin/npuemu, one static binary
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/npuemu ./cmd/npuemu

lib: ## Build build/libnpuemu.so and npuemu.h, for C and Python (docs/capi.md); needs a C compiler
	@capi/build.sh build $(VERSION)

wheel: ## Build build/npuemu-*.whl, the Python package with library and program (docs/python.md); fetches build tools, 10 MB
	@python/wheel.sh build $(VERSION)

test-python: wheel ## Install the wheel and run its tests; fetches numpy, onnx, pytest, mypy, 100 MB
	@python/test.sh build

test-torch: wheel ## Install the wheel and run PyTorch's and ONNX's tests; the first run fetches PyTorch, 1 to 3 GB
	@tests/torch/run $(CURDIR)/build

setup: ## Fetch QEMU, guest kernels, compilers and busybox into the cache
	@tests/guest/setup.sh

setup-arm64: ## The same, and what arm64 guests need
	@tests/guest/setup.sh --arm64

setup-kselftest: setup-arm64 ## The same, and what tests need of the kernel's source: selftest harness, checkpatch
	@tests/kselftest/setup.sh

test-unit: ## Tests that need no guest
	@$(GO) test -short ./...

test-race: ## The same under the race detector
	@$(GO) test -short -race ./...

test-guest: setup-kselftest ## Tests that boot Linux in QEMU; one table of the results, KTAP and JUnit in build/results
	@tests/run-all --guests

soak: ## 10,000 clients that attach and are killed, over each transport
	@$(GO) test -count=1 -v -run 'TestSoak$$' ./tests/conformance ./tests/virtiotest -soak 10000

test-uml: setup ## User-mode Linux with the virtio device; the first time it is built
	@tests/uml/setup.sh
	@NPUEMU_REQUIRE_GUEST=1 NPUEMU_REQUIRE_UML=1 $(GO) test -count=1 -v ./tests/uml/

kernel-lean: setup ## Build the lean guest kernel into the cache, unless it is there; 15 minutes of processor time
	@tests/guest/kernels/kernel.sh tests/guest/kernels/lean.config

kernel-debug: setup ## The same with KASAN, lockdep, KCOV and DMA_API_DEBUG; 25 minutes of processor time
	@tests/guest/kernels/kernel.sh tests/guest/kernels/lean.config tests/guest/kernels/debug.config

test-debug-kernel: kernel-debug setup-kselftest ## The driver and its selftests on the debug kernel, which must not complain
	@NPUEMU_REQUIRE_GUEST=1 NPUEMU_REQUIRE_KERNELS=debug NPUEMU_TIMEOUT_SCALE=$${NPUEMU_TIMEOUT_SCALE:-4} $(GO) test -count=1 -timeout 120m -v -run TestDebugKernel ./tests/card/

test-vfio: kernel-lean ## The kernel's VFIO selftests and dmatest on the ioat device, in guests with the lean and the stock kernel
	@NPUEMU_REQUIRE_GUEST=1 NPUEMU_REQUIRE_KERNELS=lean $(GO) test -count=1 -timeout 60m -v ./tests/vfio/

test-riscv: setup ## riscv-tests and riscv-arch-test on the control processor; the first run fetches and builds them
	@dir=$$(tests/riscv/setup.sh) && NPUEMU_RISCV_TESTS="$$dir" $(GO) test ./firmware/cpu -run 'TestArchitecture$$' -count=1 -v

fuzz: ## Every fuzz target for FUZZTIME each, then fuzz-engines
	@tests/fuzz-all $(FUZZTIME)
	@$(MAKE) -s fuzz-engines

fuzz-engines: ## Random programs on the core and on the reference, until a difference is found or you stop it
	@mkdir -p build/engines
	@$(GO) test ./tests/engines -run 'TestDifferential$$' -count=1 -timeout 0 -v -time 0 -save $(CURDIR)/build/engines

bench: ## Benchmarks
	@$(GO) test -run '^$$' -bench . -benchmem ./...

bench-transport: ## The transports side by side with libvfio-user (docs/performance.md); results in build/bench
	@$(GO) test ./tests/bench/transport -count=1 -run TestMeasure -measure -timeout 30m -out $(CURDIR)/build/bench -v
bench-peers: bench-products bench-vector bench-networks ## Everything beside its peer in one run, one after the other: products, vector engine, networks

bench-products: ## core/gemm, whole commands and convolutions beside oneDNN (docs/performance.md); the first run fetches oneDNN, 11 MB
	@$(GO) run ./tests/bench/peers

bench-networks: ## ResNet-50 and MobileNetV2 on a card in process and in ONNX Runtime, in turns; the first run fetches onnx and onnxruntime, 70 MB
	@tests/bench/networks/bench $(CURDIR)/build/models

bench-scalesim: ## timing beside SCALE-Sim v3: equal cycles, and speed; the first run fetches it, 500 MB with what it needs
	@$(GO) run ./tests/bench/scalesim

test-mlir: ## examples/mlir with stock MLIR tools (docs/mlir.md); the first run fetches them, 102 MB
	@examples/mlir/setup.sh
	@NPUEMU_MLIR=1 $(GO) test ./examples/mlir -count=1 -v

test-tvm: lib ## npuemu.tvm with stock TVM, and TVM's own test of its example NPU (docs/tvm.md); the first run fetches TVM, 0.5 GB unpacked
	@tests/tvm/run build/libnpuemu.so

compare-onnxruntime: build ## Quantized operators, one by one, beside ONNX Runtime's (docs/compiler.md); the first run fetches wheels, 100 MB
	@dir=$$(tests/models/setup.sh) && "$$dir/python/bin/python" tests/compiler/against_ort.py bin/npuemu "$$dir/operators"

bench-vector: ## The vector engine beside C, which the system's compiler compiles (docs/performance.md)
	@$(GO) run ./tests/bench/vector

models: build ## Whole networks on a card in process, beside ONNX Runtime; writes docs/models.md; the first run fetches wheels, 100 MB
	@$(GO) run ./tests/models $(MODELS)

operators: ## ONNX's node test cases on a card in process; writes docs/operators.md; the first run fetches onnx, 40 MB, into the cache
	@tests/onnx/operators.sh

test-tflite: ## Models of tflite-micro's tests in LiteRT and on a card in process, to the bit; writes docs/tflite.md; fetches LiteRT, 70 MB, and models, 6 MB
	@tests/tflite/models.sh $(CURDIR)/build/tflite

bench-guest: build ## Register accesses inside a guest, beside QEMU's own edu device
	@$(GO) run ./tests/bench/guest

bench-driver: build ## What a guest gets through the driver: latency, rates, recovery; device MMU, control processor
	@$(GO) run ./tests/bench/driver

lint: ## golangci-lint
	@$(GOLANGCI) run ./...

fmt: ## Format
	@$(GOFUMPT) -w $(shell git ls-files '*.go')

generate: ## Registers: C headers and docs/spec/registers.md from mmio/npureg
	@$(GO) run ./internal/regen

generate-gemm: ## The assembly of core/gemm; its generator is a module of its own
	@$(GO) -C core/gemm/gen run .

generate-vec: ## The same of core/vec
	@$(GO) -C core/vec/gen run .

generate-gemm-check: ## Show that this assembly is what its generator writes
	@mkdir -p build/gemm && $(GO) -C core/gemm/gen run . $(CURDIR)/build/gemm
	@for f in zkernels_amd64.s zkernels_amd64.go; do cmp core/gemm/$$f build/gemm/$$f || exit 1; done
	@rm -r build/gemm # or ./... has a package more

generate-vec-check: ## The same of core/vec
	@mkdir -p build/vec && $(GO) -C core/vec/gen run . $(CURDIR)/build/vec
	@for f in zkernels_amd64.s zkernels_amd64.go ztables_amd64.go; do cmp core/vec/$$f build/vec/$$f || exit 1; done
	@rm -r build/vec

firmware: setup ## Rebuild boot ROM and firmware image from C
	@tests/guest/toolroot-run --src firmware/src --out build/firmware -- make -s payloads
	@$(MAKE) -s -C firmware/src O=$(CURDIR)/build/firmware/build update

firmware-check: setup ## Show that ROM and firmware rebuild to the committed bytes
	@tests/guest/toolroot-run --src firmware/src --out build/firmware -- make -s payloads
	@$(MAKE) -s -C firmware/src O=$(CURDIR)/build/firmware/build check

firmware-compilers: setup ## Build ROM and firmware with clang too, and test that they behave like gcc's
	@tests/firmware-compilers

driver: setup ## Build the kernel module for both guest kernels into build/
	@$(GO) run ./tests/demo -build-only

driver-check: setup-kselftest ## The driver through W=1, sparse and checkpatch --strict, for both guest kernels
	@tests/driver/check.sh

check: ## What CI runs before the tests: formatting, generated files, vet, lint, clean tree
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'check: run make fmt'; exit 1; }
	@$(GO) vet ./...
	@$(GO) mod tidy -diff
	@$(GO) run ./internal/regen -check
	@$(MAKE) -s generate-gemm-check generate-vec-check
	@$(GOLANGCI) run ./...
	@git diff --exit-code --stat
