# `make demo` shows outcrop at work; `make test` is all that CI runs. Both install what they need and say so.
SHELL := /bin/bash
.PHONY: demo test test-openzfs soak fuzz check bench build tools-demo tools-test tools-bench tools-fuzz

build:
	cargo build --release

demo: tools-demo build
	demo/run

# Formatting, lints, unit tests, and the integration tests: real kernel, real tools, loopback only.
test: tools-test check
	tests/in-memory tests/all

# The driver `zfs` on OpenZFS, which is built for the kernel of a virtual machine, once, and kept in target/openzfs.
test-openzfs: tools-test
	cargo test --locked --test outcrop zfs::on_openzfs -- --ignored --nocapture

# The proof of the cache with other seeds and more cases, verbs that die before any of their steps (CRASHES of each; all), then
# power cuts, then udev, then OpenZFS: make soak CASES=100000 SEED=7 CRASHES=50 CUTS=100 LOGS=3
soak: tools-test
	OUTCROP_CASES=$(or $(CASES),50000) OUTCROP_SEED=$(or $(SEED),$(shell date +%s)) \
	  cargo test --locked --test outcrop differential::an_incremental -- --nocapture
	OUTCROP_CRASHES=$(or $(CRASHES),1000000) OUTCROP_SEED=$(or $(SEED),$(shell date +%s)) \
	  cargo test --locked --test outcrop crash:: -- --nocapture --test-threads=2
	OUTCROP_CUTS=$(or $(CUTS),100) OUTCROP_LOGS=$(or $(LOGS),3) OUTCROP_SEED=$(or $(SEED),$(shell date +%s)) \
	  cargo test --locked --test outcrop power:: -- --nocapture --test-threads=1
	cargo test --locked --test outcrop devicemapper::beside_udev -- --ignored --nocapture
	$(MAKE) test-openzfs

check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

bench: tools-bench build
	cargo build --release --bench latency && cp $$(ls -t target/release/deps/latency-* | grep -v '\.d$$' | head -1) target/release/latency
	bench/run
	bench/builds
	bench/transfers
	bench/drivers

# Each fuzz target for FUZZ_SECONDS (60).
fuzz: tools-fuzz
	fuzz/run

tools-demo:
	@tools/need cargo:- cc:gcc mmdebstrap:mmdebstrap

tools-test:
	@tools/need cargo:- cc:gcc make:make mmdebstrap:mmdebstrap busybox:busybox-static sqlite3:sqlite3 skopeo:skopeo \
	  umoci:umoci openssl:openssl git:git crun:crun runc:runc docker-registry:docker-registry zstd:zstd xz:xz-utils bzip2:bzip2 bsdtar:libarchive-tools \
	  podman:podman python3:python3 setcap:libcap2-bin setfattr:attr filefrag:e2fsprogs ssh-agent:openssh-client qemu-aarch64-static:qemu-user-static mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs \
	  buildah:buildah dockerd:docker.io dmsetup:dmsetup thin_check:thin-provisioning-tools qemu-system-x86_64:qemu-system-x86 zfs-fuse:zfs-fuse \
	  fuse-overlayfs:fuse-overlayfs

tools-bench:
	@tools/need cargo:- cc:gcc hyperfine:hyperfine python3:python3 busybox:busybox-static mmdebstrap:mmdebstrap \
	  skopeo:skopeo docker-registry:docker-registry mkfs.btrfs:btrfs-progs zfs-fuse:zfs-fuse

tools-fuzz:
	@tools/need cargo:- cc:gcc c++:g++
