//! For each part of a key: ends of a stage that differ in nothing but it.

use outcrop::runtime::Rlimit;
use outcrop::verb::build::Options;

/// A part of a key, and what it may be.
pub(super) struct Focus {
    pub(super) hole: &'static str,
    ends: &'static [End],
}

/// Instructions, and what the command line would say besides.
pub(super) struct End {
    pub(super) instructions: &'static str,
    pub(super) ask: fn(&mut Options),
}

const fn end(instructions: &'static str) -> End {
    End { instructions, ask: |_| {} }
}

const fn asked(instructions: &'static str, ask: fn(&mut Options)) -> End {
    End { instructions, ask }
}

impl Focus {
    pub(super) fn end(&self, random: &mut super::random::Random) -> &'static End {
        &self.ends[random.below(self.ends.len())]
    }
}

fn argument(options: &mut Options, name: &str, value: &str) {
    options.build_args.insert(name.into(), value.into());
}

fn host(options: &mut Options, name: &str) {
    options.run.resources.hosts = vec![(name.into(), "127.0.0.9".into())];
}

fn files(options: &mut Options, soft: u64) {
    options.run.resources.ulimits = vec![Rlimit { name: "nofile".into(), soft, hard: 128 }];
}

const SHM: &str = "RUN awk '$2 == \"/dev/shm\" { print $4 }' /proc/mounts > /out";
const HOSTS: &str = "RUN grep -o 'host[12]' /etc/hosts > /out || true";

/// Not here: `copy.link` (such a step stands on nothing, as `parent` says), `copy.parents` (the names in `content` differ),
/// the platform and what runs its programs (another one has another base).
pub(super) const ALL: &[Focus] = &[
    Focus {
        hole: "parent",
        ends: &[end("RUN echo 1 > /x\nRUN cat /x > /out"), end("RUN echo 2 > /x\nRUN cat /x > /out")],
    },
    Focus {
        hole: "epoch",
        ends: &[
            end("RUN echo 1 > /x"),
            asked("RUN echo 1 > /x", |options| argument(options, "SOURCE_DATE_EPOCH", "7")),
        ],
    },
    Focus { hole: "run.args", ends: &[end("RUN echo 1 > /out"), end("RUN echo 2 > /out")] },
    Focus {
        hole: "run.env",
        ends: &[end("ENV A=1\nRUN echo $A > /out"), end("ENV A=2\nRUN echo $A > /out")],
    },
    Focus {
        hole: "run.user",
        ends: &[
            end("RUN chmod 777 /tmp\nUSER root\nRUN id -u > /tmp/out"),
            end("RUN chmod 777 /tmp\nUSER some\nRUN id -u > /tmp/out"),
        ],
    },
    Focus {
        hole: "run.working_dir",
        ends: &[end("WORKDIR /etc\nRUN pwd > /out"), end("WORKDIR /bin\nRUN pwd > /out")],
    },
    Focus {
        hole: "run.network",
        // The other end of what tells the step that the engine is alive is a socket of the host's network.
        ends: &[
            end("RUN --network=none awk 'NR > 1 { n = 1 } END { print n + 0 }' /proc/net/unix > /out"),
            end("RUN --network=host awk 'NR > 1 { n = 1 } END { print n + 0 }' /proc/net/unix > /out"),
        ],
    },
    Focus {
        hole: "run.files",
        ends: &[
            end("RUN <<EOF\n#!/bin/sh\necho 1 > /out\nEOF"),
            end("RUN <<EOF\n#!/bin/sh\necho 2 > /out\nEOF"),
        ],
    },
    Focus {
        hole: "run.mounts",
        ends: &[end("RUN --mount=type=tmpfs,target=/in ls /in > /out"), end("RUN ls /in > /out")],
    },
    Focus {
        hole: "run.hosts",
        ends: &[
            asked(HOSTS, |options| host(options, "host1")),
            asked(HOSTS, |options| host(options, "host2")),
        ],
    },
    Focus {
        hole: "run.shm_size",
        ends: &[
            asked(SHM, |options| options.run.resources.shm_size = Some(1 << 20)),
            asked(SHM, |options| options.run.resources.shm_size = Some(1 << 21)),
        ],
    },
    Focus {
        hole: "run.ulimits",
        ends: &[
            asked("RUN ulimit -n > /out", |options| files(options, 64)),
            asked("RUN ulimit -n > /out", |options| files(options, 99)),
        ],
    },
    Focus {
        hole: "run.insecure",
        ends: &[
            asked("RUN --security=insecure grep CapEff /proc/self/status > /out", |options| {
                options.run.insecure = true;
            }),
            end("RUN --security=sandbox grep CapEff /proc/self/status > /out"),
        ],
    },
    Focus {
        hole: "run.hostname",
        ends: &[
            asked("RUN cat /proc/sys/kernel/hostname > /out", |options| {
                argument(options, "BUILDKIT_SANDBOX_HOSTNAME", "one");
            }),
            asked("RUN cat /proc/sys/kernel/hostname > /out", |options| {
                argument(options, "BUILDKIT_SANDBOX_HOSTNAME", "two");
            }),
        ],
    },
    Focus {
        hole: "copy.content",
        ends: &[end("COPY --from=base /etc/passwd /x"), end("COPY --from=base /etc/group /x")],
    },
    Focus {
        hole: "copy.files",
        ends: &[end("COPY <<EOF /x\nnote 1\nEOF"), end("COPY <<EOF /x\nnote 2\nEOF")],
    },
    Focus { hole: "copy.destination", ends: &[end("COPY a /x"), end("COPY a /y")] },
    Focus {
        hole: "copy.chown",
        ends: &[end("COPY --chown=5:6 a /x"), end("COPY --chown=some a /x"), end("COPY a /x")],
    },
    Focus { hole: "copy.chmod", ends: &[end("COPY --chmod=0711 a /x"), end("COPY --chmod=0600 a /x")] },
    Focus { hole: "copy.unpack", ends: &[end("COPY t.tar /x/"), end("ADD t.tar /x/")] },
    Focus { hole: "workdir.path", ends: &[end("WORKDIR /n1"), end("WORKDIR /n2")] },
    Focus { hole: "workdir.user", ends: &[end("USER root\nWORKDIR /n"), end("USER some\nWORKDIR /n")] },
];
