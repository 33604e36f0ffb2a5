//! The system call filter: Docker's default profile as a BPF program for the kernel, or as the section of an OCI
//! config.
//!
//! One program for all kinds of programs that the kernel runs (64-bit and 32-bit x86), each with its own numbers. Within
//! one, a binary search over ranges of numbers with one verdict: some eight instructions for a call. (seccompiler goes
//! through the list one by one, knows one error number, and kills 32-bit programs.)

mod numbers;
mod profile;

use std::collections::{BTreeMap, BTreeSet};

use libc::sock_filter;
use serde_json::{Value, json};

use self::profile::Test;
use super::Capability;

/// linux/audit.h
#[cfg(target_arch = "x86_64")]
const TABLES: &[(u32, &[(&str, u32)])] = &[(0xc000_003e, numbers::X86_64), (0x4000_0003, numbers::X86)];
#[cfg(target_arch = "aarch64")]
const TABLES: &[(u32, &[(&str, u32)])] = &[(0xc000_00b7, numbers::GENERIC)];
#[cfg(target_arch = "riscv64")]
const TABLES: &[(u32, &[(&str, u32)])] = &[(0xc000_00f3, numbers::GENERIC)];

#[cfg(target_arch = "x86_64")]
const OCI_ARCHITECTURES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"];
#[cfg(target_arch = "aarch64")]
const OCI_ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64"];
#[cfg(target_arch = "riscv64")]
const OCI_ARCHITECTURES: &[&str] = &["SCMP_ARCH_RISCV64"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Errno(i32),
    /// Allowed when one of the tests holds, else EPERM.
    If(&'static [Test]),
}

const DENY: Verdict = Verdict::Errno(libc::EPERM);

/// The filter for a container with these capabilities.
pub(super) fn program(capabilities: &[Capability]) -> Vec<sock_filter> {
    let verdicts = verdicts(capabilities);
    let mut program = vec![load(ARCHITECTURE)];
    for (architecture, table) in TABLES {
        let numbered: BTreeMap<u32, Verdict> =
            table.iter().filter_map(|(name, number)| Some((*number, *verdicts.get(name)?))).collect();
        let body = search(&ranges(&numbered));
        // To the next architecture, over the body and the load in front of it.
        program.push(jump(libc::BPF_JEQ, *architecture, 1, 0));
        program.push(leap(body.len() + 1));
        program.push(load(NUMBER));
        program.extend(body);
    }
    program.push(answer(Verdict::Errno(libc::ENOSYS)));
    program
}

fn verdicts(capabilities: &[Capability]) -> BTreeMap<&'static str, Verdict> {
    let mut verdicts = BTreeMap::new();
    for name in profile::ALLOWED.split_whitespace().chain(profile::OURS.split_whitespace()) {
        verdicts.insert(name, Verdict::Allow);
    }
    for (name, tests) in profile::CONDITIONAL {
        verdicts.insert(name, Verdict::If(tests));
    }
    verdicts.insert("clone", Verdict::If(&[profile::CLONE]));
    verdicts.insert("clone3", Verdict::Errno(libc::ENOSYS));
    for (capability, names) in profile::WITH {
        if capabilities.contains(capability) {
            verdicts.extend(names.split_whitespace().map(|name| (name, Verdict::Allow)));
        }
    }
    verdicts
}

/// Where each range of numbers with one verdict begins; the first at 0, the last without end.
fn ranges(numbered: &BTreeMap<u32, Verdict>) -> Vec<(u32, Verdict)> {
    let mut ranges = vec![(0, DENY)];
    let mut begin = |number, verdict| {
        let last = ranges.last_mut().expect("it has one from the start");
        if last.0 == number {
            last.1 = verdict;
        } else if last.1 != verdict {
            ranges.push((number, verdict));
        }
    };
    for (number, verdict) in numbered {
        begin(*number, *verdict);
        if !numbered.contains_key(&(number + 1)) {
            begin(number + 1, DENY);
        }
    }
    ranges
}

fn search(ranges: &[(u32, Verdict)]) -> Vec<sock_filter> {
    match ranges {
        [] => Vec::new(),
        [(_, Verdict::If(tests))] => conditions(tests),
        [(_, verdict)] => vec![answer(*verdict)],
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let low = search(low);
            let mut code = Vec::with_capacity(low.len() + 2);
            // Conditional jumps reach 255 instructions; a plain one reaches all.
            code.push(jump(libc::BPF_JGE, high[0].0, 0, 1));
            code.push(leap(low.len()));
            code.extend(low);
            code.extend(search(high));
            code
        }
    }
}

fn conditions(tests: &[Test]) -> Vec<sock_filter> {
    let mut code = Vec::new();
    for test in tests {
        code.push(load(FIRST_ARGUMENT));
        code.push(match test {
            Test::Is(value) => jump(libc::BPF_JEQ, *value, 0, 1),
            Test::Below(value) => jump(libc::BPF_JGE, *value, 1, 0),
            Test::Above(value) => jump(libc::BPF_JGT, *value, 0, 1),
            Test::Without(bits) => jump(libc::BPF_JSET, *bits, 1, 0),
        });
        code.push(answer(Verdict::Allow));
    }
    code.push(answer(DENY));
    code
}

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// Its low half.
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("BPF codes are one byte"), jt, jf, k }
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn jump(test: u32, value: u32, jt: u8, jf: u8) -> sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, jt, jf, value)
}

fn leap(over: usize) -> sock_filter {
    let over = u32::try_from(over).expect("the kernel takes 4096 instructions");
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, over)
}

fn answer(verdict: Verdict) -> sock_filter {
    let action = match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Errno(errno) => {
            libc::SECCOMP_RET_ERRNO | u32::try_from(errno).expect("error numbers are positive")
        }
        Verdict::If(_) => unreachable!("conditions() answers these"),
    };
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

/// The same for an OCI config (runtime-spec config-linux.md, "Seccomp").
pub(super) fn document(capabilities: &[Capability]) -> Value {
    let verdicts = verdicts(capabilities);
    // Names that some table knows: a runtime may refuse a profile with others.
    let known: BTreeSet<&str> =
        TABLES.iter().flat_map(|(_, table)| table.iter().map(|(name, _)| *name)).collect();
    let mut allowed = Vec::new();
    let mut rules = Vec::new();
    for (name, verdict) in verdicts.into_iter().filter(|(name, _)| known.contains(name)) {
        match verdict {
            Verdict::Allow => allowed.push(name),
            Verdict::Errno(errno) => {
                rules.push(json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}));
            }
            Verdict::If(tests) => rules.extend(tests.iter().map(|test| {
                let args = match test {
                    Test::Is(value) => json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"}),
                    Test::Below(value) => json!({"index": 0, "value": value, "op": "SCMP_CMP_LT"}),
                    Test::Above(value) => json!({"index": 0, "value": value, "op": "SCMP_CMP_GT"}),
                    Test::Without(bits) => {
                        json!({"index": 0, "value": bits, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"})
                    }
                };
                json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [args]})
            })),
        }
    }
    rules.push(json!({"names": allowed, "action": "SCMP_ACT_ALLOW"}));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": OCI_ARCHITECTURES,
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_CAPABILITIES;
    use super::*;

    /// What the kernel would do: 7 classic BPF instructions are all we use.
    fn run(program: &[sock_filter], architecture: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let code = u32::from(code);
            at += 1;
            let choose = |yes: bool| usize::from(if yes { jt } else { jf });
            match code & 7 {
                libc::BPF_LD => {
                    accumulator = match k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        _ => argument,
                    }
                }
                libc::BPF_RET => return k,
                _ => {
                    at += match code & 0xf0 {
                        libc::BPF_JA => usize::try_from(k).unwrap(),
                        libc::BPF_JEQ => choose(accumulator == k),
                        libc::BPF_JGE => choose(accumulator >= k),
                        libc::BPF_JGT => choose(accumulator > k),
                        _ => choose(accumulator & k != 0),
                    }
                }
            }
        }
    }

    #[test]
    fn the_program_says_what_the_profile_says() {
        let program = program(&DEFAULT_CAPABILITIES);
        let verdicts = verdicts(&DEFAULT_CAPABILITIES);
        for (architecture, table) in TABLES {
            let named: BTreeMap<u32, &str> = table.iter().map(|(name, number)| (*number, *name)).collect();
            for number in 0..600 {
                let expected = match named.get(&number).and_then(|name| verdicts.get(name)) {
                    Some(Verdict::Allow) => libc::SECCOMP_RET_ALLOW,
                    Some(Verdict::Errno(_)) => libc::SECCOMP_RET_ERRNO | 38,
                    Some(Verdict::If(_)) => continue,
                    None => libc::SECCOMP_RET_ERRNO | 1,
                };
                assert_eq!(run(&program, *architecture, number, 0), expected, "{number} {named:?}");
            }
        }
        assert_eq!(run(&program, 0xdead, 0, 0), libc::SECCOMP_RET_ERRNO | 38);
        assert!(program.len() < 700, "{} instructions", program.len());
    }

    #[test]
    fn arguments_are_looked_at() {
        let program = program(&DEFAULT_CAPABILITIES);
        let (architecture, table) = TABLES[0];
        let number = |wanted: &str| table.iter().find(|(name, _)| *name == wanted).unwrap().1;
        let allowed = |name: &str, argument| {
            run(&program, architecture, number(name), argument) == libc::SECCOMP_RET_ALLOW
        };
        assert!(allowed("clone", 0x11) && !allowed("clone", 0x1000_0011));
        let families: Vec<u32> = (0..50).filter(|family| !allowed("socket", *family)).collect();
        assert_eq!(families, [38, 40]);
        assert!(
            allowed("personality", 0x2_0008)
                && allowed("personality", u32::MAX)
                && !allowed("personality", 4)
        );
    }

    #[test]
    fn a_capability_opens_its_calls() {
        let with = |capabilities: &[Capability]| verdicts(capabilities).get("mount").copied();
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[Capability::SYS_ADMIN]), Some(Verdict::Allow));
        assert_eq!(verdicts(&[Capability::SYS_ADMIN])["clone3"], Verdict::Allow);
    }

    #[test]
    fn tables_are_sorted_and_know_each_name_once() {
        for (_, table) in TABLES {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
