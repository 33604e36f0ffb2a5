"""What both tables are made with: the engines that are there, a base image in each, and rows measured by hyperfine."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Engine:
    """What speaks Docker's command line."""

    def __init__(self, name, command, build_options=""):
        self.name, self.command, self.build_options = name, command, build_options

    def __call__(self, line):
        verb, rest = line.split(" ", 1)
        return f"{self.command} {verb} {self.build_options if verb == 'build' else ''} {rest}"

    def do(self, line, **more):
        return subprocess.run(self(line), shell=True, check=True, stdout=subprocess.DEVNULL, **more)

    def clean_up(self):
        names = " ".join(f"bench-{name}" for name in "base steps line files one large commit project tools derived".split())
        subprocess.run(f"{self('rm -f bench-full')}; {self(f'rmi -f {names}')}", shell=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start(doc, bench_class):
    """Options, tools, the rows, the table."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a hundredth of the files and bytes: does it work?")
    parser.add_argument("--json", type=Path, help="where hyperfine's numbers go")
    parser.add_argument("--only", default="", help="rows whose name has this word")
    parser.add_argument("--peers", default=bench_class.PEERS, help="which to look for")
    parser.add_argument("--own-disk", action="store_true", help="on an ext4 of its own, in a file: the kernel skips one by one the inodes "
                        "of what was removed in the last minutes where an ext4 has no journal")
    parser.add_argument("--outcrop", type=Path, default=HERE.parent / "target/release/outcrop")
    options = parser.parse_args()
    for tool in ["hyperfine", "busybox", "tar", "sha256sum", "unshare", *bench_class.TOOLS]:
        if not shutil.which(tool):
            sys.exit(f"error: `{tool}` is missing: `make bench` installs it")
    if not options.outcrop.exists():
        sys.exit(f"error: {options.outcrop} is missing: `make build` makes it")
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="outcrop-bench-", ignore_cleanup_errors=True))
        if options.own_disk:
            scratch = own_disk(Path(scratch), stack)
        daemon = Daemon(Path(scratch)) if bench_class.DAEMON and "docker" in options.peers else None
        try:
            bench = bench_class(Path(scratch), options, daemon)
            try:
                bench.all()
            finally:
                for engine in bench.engines:
                    engine.clean_up()
        finally:
            if daemon:
                daemon.end()
    print(bench.table())
    if options.json:
        options.json.write_text(json.dumps(bench.results, indent=1) + "\n")


def own_disk(scratch, stack):
    """Where all lies then. The loop device goes with the mount."""
    disk, place = scratch / "disk", scratch / "on-disk"
    with open(disk, "wb") as out:
        out.truncate(64 << 30)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    stack.callback(subprocess.run, ["umount", "-l", place])
    return place


class Daemon:
    """A dockerd of our own, in namespaces that end with it, where there is one to start and none that answers."""

    def __init__(self, scratch, driver=None, data=None):
        """`driver`: one of its own in any case, with this storage driver and its images in `data`."""
        self.process, self.command, self.containerd = None, None, scratch / "docker-run/containerd/containerd.sock"
        dockerd = shutil.which("dockerd")
        if not dockerd or (not driver and try_out("docker")):
            return
        os.environ["DOCKER_CONFIG"] = str(scratch / "docker-config")
        (scratch / "docker-config").mkdir(exist_ok=True)
        (scratch / "docker-config/config.json").write_text("{}")
        (scratch / "daemon.json").write_text("{}")
        log = open(scratch / "docker.log", "wb")
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             dockerd, "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false",
             "--userland-proxy=false", "--config-file", scratch / "daemon.json", "--data-root", data or scratch / "docker",
             "--exec-root", scratch / "docker-run", "--pidfile", scratch / "docker.pid",
             "--host", f"unix://{scratch}/docker.sock", *(["--storage-driver", driver] if driver else [])],
            stdout=log, stderr=log)
        # The client beside the daemon speaks with the BuildKit in it without a plug-in.
        beside = [str(Path(dockerd).parent.parent / "bin/docker"), shutil.which("docker")]
        client = next((name for name in beside if name and Path(name).exists()), "docker")
        self.command = f"{client} --host unix://{scratch}/docker.sock"
        for _ in range(300):
            if try_out(self.command):
                return
            time.sleep(0.2)

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()


def peers(wanted, daemon, scratch):
    """Those that can run a step here, on the disk that outcrop is on. Where crun cannot (cgroup v1 in hybrid mode), runc may."""
    podman = f"podman --root {scratch}/podman --runroot {scratch}/podman-run"
    os.environ["DOCKER_BUILDKIT"] = "1"
    found, absent = [], []
    candidates = {
        "docker": ["docker"] + ([daemon.command] if daemon and daemon.command else []),
        "podman": [podman, f"{podman} --runtime runc --cgroup-manager cgroupfs"],
        "buildah": ["buildah", "buildah --cgroup-manager cgroupfs"],
        # The containerd below our daemon.
        "ctr": [f"ctr -a {daemon.containerd} -n bench"] if daemon and daemon.process else ["ctr -n bench"],
    }
    for name, commands in candidates.items():
        if name not in wanted:
            continue
        if not shutil.which(name):
            absent.append(f"{name} (not on PATH)")
            continue
        options = "--network host" if name == "docker" else "--layers --runtime runc" if name == "buildah" else "--layers"
        works = [Engine(name, command, options) for command in commands if try_out(command)]
        if works:
            found.append(works[-1] if name == "podman" else works[0])
        else:
            absent.append(f"{name} (does not answer)")
    return found, absent


def try_out(command):
    question = "version" if command.startswith("ctr") else "info"
    try:
        return subprocess.run(f"{command} {question}", shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=60).returncode == 0
    except subprocess.TimeoutExpired:
        return False


class Bench:
    # What the rows need besides, and against whom.
    TOOLS = ()
    PEERS = "docker,podman,buildah"
    # One for all rows.
    DAEMON = True

    def __init__(self, scratch, options, daemon):
        self.scratch, self.options = scratch, options
        self.small = 100 if options.quick else 1
        self.ours = Engine("outcrop", f"{options.outcrop} --root {scratch}/root --run-root {scratch}/run")
        found, self.absent = peers(options.peers.split(","), daemon, scratch)
        self.engines = [self.ours, *found]
        self.rows, self.results = [], {}

    def base(self):
        tree = self.scratch / "base"
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"]:
            (tree / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox"), tree / "bin/busybox")
        for applet in subprocess.run(["busybox", "--list"], capture_output=True, text=True).stdout.split():
            if applet != "busybox":
                (tree / "bin" / applet).symlink_to("busybox")
        subprocess.run(["tar", "-C", tree, "-cf", self.scratch / "base.tar", "."], check=True)
        self.give(self.scratch / "base.tar", "bench-base")

    def give(self, archive, name):
        """The archive of a tree becomes an image of every engine that can."""
        for engine in list(self.engines):
            try:
                if engine.name == "buildah":
                    subprocess.run("c=$(buildah from scratch) && buildah add -q $c "
                                          f"{archive} / && buildah commit -q $c {name} && buildah rm $c",
                                          shell=True, check=True, capture_output=True)
                else:
                    engine.do(f"import {archive} {name}", stderr=subprocess.PIPE)
            except subprocess.CalledProcessError as problem:
                if engine is self.ours:
                    raise
                said = (problem.stderr or b"").decode().strip().splitlines() or ["failed"]
                self.absent.append(f"{engine.name} ({said[-1]})")
                self.engines.remove(engine)

    def context(self, name, dockerfile):
        context = self.scratch / name
        context.mkdir()
        (context / "Dockerfile").write_text("FROM bench-base\n" + dockerfile)
        return context

    # Measuring.

    def row(self, name, commands, limit=None, prepare=None, runs=10):
        print(f"measuring: {name}", file=sys.stderr)
        # Who writes its layers to disk at the end would wait for what others left.
        os.sync()
        named = [(engine.name, command) for engine, command in commands.items() if self.can(engine, command, name, prepare)]
        named += [limit] if limit else []
        export = self.scratch / "hyperfine.json"
        # Each has run once already, to see whether it can.
        line = ["hyperfine", "--style", "none", "--export-json", export, "--warmup", "1" if runs > 3 else "0"]
        line += ["--runs", str(runs)]
        line += ["--prepare", prepare] if prepare else []
        for label, command in named:
            line += ["--command-name", label, command if "|" in command or "&&" in command else f"{command} > /dev/null"]
        done = subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"error: measuring {name}\n{done.stderr}")
        results = json.loads(export.read_text())["results"]
        if prepare:
            subprocess.run(prepare, shell=True, check=True)
        results[0]["peak"] = peak(named[0][1])
        print(", ".join(f"{result['command']} {duration(result['median'])}" for result in results), file=sys.stderr)
        self.results[name] = results
        self.rows.append((name, results))

    def can(self, engine, command, name, prepare):
        """A peer that fails here is left out of the row, and that is said."""
        if prepare:
            subprocess.run(prepare, shell=True, check=True)
        done = subprocess.run(command, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode and engine is self.ours:
            sys.exit(f"error: {name}: {command}\n{done.stderr}")
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["failed"]
            self.absent.append(f"{engine.name} in \"{name}\" ({said[-1]})")
        return done.returncode == 0

    def table(self):
        lines = ["| | outcrop | peak memory | against | takes | ratio |", "|---|--:|--:|---|--:|--:|"]
        for name, (ours, *others) in self.rows:
            for n, other in enumerate(others or [None]):
                own = [name, duration(ours["median"]), f"{ours['peak'] / 1e6:.0f} MB"] if n == 0 else ["", "", ""]
                theirs = (["-", "-", "-"] if other is None else
                          [f"`{other['command']}`", duration(other["median"]), f"{ours['median'] / other['median']:.2f}"])
                lines.append(f"| {' | '.join(own + theirs)} |")
        if self.absent:
            lines += ["", f"Peers that were not there: {', '.join(self.absent)}."]
        return "\n".join(lines)


def peak(command):
    """Bytes of the largest process of a command, as wait4(2) tells them."""
    child = subprocess.Popen(command, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(child.pid, 0)
    return usage.ru_maxrss * 1024


def duration(seconds):
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def fill(tree, count):
    """Files of about 1 KB, 500 in a directory."""
    for n in range(count):
        if n % 500 == 0:
            (tree / str(n // 500)).mkdir(parents=True)
        (tree / str(n // 500) / str(n)).write_bytes(f"{n}\n".encode() * (n % 300 + 1))


def blob(path, megabytes):
    """Bytes that nothing compresses away or leaves out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    piece = os.urandom(1 << 20)
    with open(path, "wb") as out:
        for n in range(max(1, megabytes)):
            out.write(n.to_bytes(8, "big") + piece[8:])
