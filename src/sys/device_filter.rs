//! Which devices the processes of a cgroup may use, where cgroups are version 2: a program of a few instructions
//! (kernel Documentation/admin-guide/cgroup-v2.rst, "Device controller"; bpf(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// linux/bpf.h, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one, on little-endian machines.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    let registers = if cfg!(target_endian = "little") { to | from << 4 } else { to << 4 | from };
    Instruction { code, registers, offset, immediate }
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

/// `struct bpf_cgroup_dev_ctx`: access << 16 | type, major, minor.
const MAKE_NODE: i32 = 1;
const CHARACTER: i32 = 2;

/// Lets nodes of all devices be made, and these character devices be used: major, minor; `None` for any.
pub fn attach(cgroup: BorrowedFd<'_>, allowed: &[(u32, Option<u32>)]) -> io::Result<()> {
    let program = load(&program(allowed)?)?;
    let mut attr = Attach {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

fn program(allowed: &[(u32, Option<u32>)]) -> io::Result<Vec<Instruction>> {
    let number = |value: u32| i32::try_from(value).map_err(io::Error::other);
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    // Over the answer that follows, when it does not hold.
    let accept = [instruction(MOVE, 0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)];
    code.push(instruction(JUMP_IF_NOT, 3, 0, 2, MAKE_NODE));
    code.extend(accept);
    for (major, minor) in allowed {
        let rest = if minor.is_some() { 1 } else { 0 };
        code.push(instruction(JUMP_IF_NOT, 2, 0, 3 + rest, CHARACTER));
        code.push(instruction(JUMP_IF_NOT, 4, 0, 2 + rest, number(*major)?));
        if let Some(minor) = minor {
            code.push(instruction(JUMP_IF_NOT, 5, 0, 2, number(*minor)?));
        }
        code.extend(accept);
    }
    code.extend([instruction(MOVE, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    Ok(code)
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes the rest as zero.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    length: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// For BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        length: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        ..Load::default()
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attr)?;
    #[allow(unsafe_code, reason = "a new descriptor from a raw system call")]
    // SAFETY: the kernel made it for this call; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[allow(unsafe_code, reason = "bpf(2)")]
fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: attr is one of the structures above, of the size given; what it points to outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(answer).map_err(io::Error::other) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// Where this machine has version 2, alone or beside version 1.
    fn hierarchy() -> Option<&'static Path> {
        [Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/unified")]
            .into_iter()
            .find(|path| path.join("cgroup.procs").exists() && path.join("cgroup.controllers").exists())
    }

    #[test]
    fn a_group_uses_only_the_devices_it_may() {
        let Some(hierarchy) = hierarchy() else {
            eprintln!("not tested: this machine has no cgroup v2");
            return;
        };
        let group = hierarchy.join(format!("outcrop-devices-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let dir = std::fs::File::open(&group).unwrap();
        attach(dir.as_fd(), &[(1, Some(3)), (136, None)]).unwrap();
        let script = "echo 0 > $0/cgroup.procs; echo x > /dev/null && echo null; \
                      head -c1 /dev/zero > /dev/null && echo zero; \
                      mknod $1 b 7 7 && echo made; cat $1 && echo opened; rm $1";
        let node = std::env::temp_dir().join(format!("outcrop-node-{}", std::process::id()));
        let output = Command::new("sh").args(["-c", script]).arg(&group).arg(&node).output().unwrap();
        std::fs::remove_dir(&group).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "null\nmade\n");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(errors.matches("Operation not permitted").count(), 2, "{errors}");
    }
}
