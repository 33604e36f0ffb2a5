//! RUN on a platform that the processor is none for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sandbox::{Outcome, Sandbox, copy_program, find_on_path};

/// A program for arm64 that says `arm` and ends.
fn hello() -> Vec<u8> {
    let code: [u32; 8] = [
        0xd280_0020, // mov x0, #1
        0x1000_00e1, // adr x1, text
        0xd280_0082, // mov x2, #4
        0xd280_0808, // mov x8, #64 (write)
        0xd400_0001, // svc #0
        0xd280_0000, // mov x0, #0
        0xd280_0ba8, // mov x8, #93 (exit)
        0xd400_0001, // svc #0
    ];
    let mut file = Vec::new();
    // elf(5): the head, one segment that is all of the file, at 0x10000.
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend([2u16, 183].iter().flat_map(|number| number.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    file.extend([0x10078u64, 64, 0].iter().flat_map(|number| number.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|number| number.to_le_bytes()));
    file.extend([1u32, 5].iter().flat_map(|number| number.to_le_bytes()));
    file.extend([0u64, 0x10000, 0x10000, 156, 156, 0x1000].iter().flat_map(|number| number.to_le_bytes()));
    file.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    file.extend(b"arm\n");
    file
}

/// Builds where binfmt_misc is mounted, seen by nobody else, with an interpreter registered under these flags. The kernel
/// knows it everywhere while the build runs.
fn build(sandbox: &Sandbox, interpreter: Option<(&Path, &str)>) -> Outcome {
    const SCRIPT: &str = "place=/proc/sys/fs/binfmt_misc; name=$1; line=$2; shift 2; \
        mount -t binfmt_misc binfmt_misc $place || exit 99; \
        test -z \"$line\" || printf %s \"$line\" > $place/register || exit 98; \
        \"$@\"; code=$?; test -z \"$line\" || echo -1 > $place/$name; exit $code";
    let name = format!("outcrop-test-{}", std::process::id());
    let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    let line =
        interpreter.map(|(path, flags)| format!(":{name}:M::{magic}:{mask}:{}:{flags}", path.display()));
    let plain =
        sandbox.command(&["build", "--progress", "plain", "--platform", "linux/arm64", "-t", "it", "."]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh", &name, &line.unwrap_or_default()]);
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(sandbox.context());
    Outcome::of(command.env("HOME", sandbox.dir()))
}

#[test]
fn a_program_of_another_processor_runs_through_the_interpreter_that_is_registered_for_it() {
    if cfg!(target_arch = "aarch64") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.dockerfile("FROM scratch\nCOPY --chmod=755 hello /hello\nRUN [\"/hello\"]\n");
    sandbox.file("hello", hello());
    build(&sandbox, None)
        .fails(1)
        .complains("Dockerfile, line 3: RUN [\"/hello\"]")
        .complains("cannot run commands of linux/arm64: no interpreter is registered for them")
        .complains("hint: install qemu-user-static and binfmt-support");

    let interpreter: PathBuf = sandbox.dir().join("interpreter");
    copy_program(&find_on_path("qemu-aarch64-static"), &interpreter);
    let held = Some((&*interpreter, "F"));
    let first = build(&sandbox, held).ok();
    assert!(first.lines().contains(&"arm".to_owned()), "{}", first.stdout());
    build(&sandbox, held).ok().says_not("Running in");

    // Another interpreter is another input; this one says so by a byte behind its end.
    let mut bytes = fs::read(&interpreter).unwrap();
    bytes.push(0);
    fs::remove_file(&interpreter).unwrap();
    fs::write(sandbox.dir().join("longer"), bytes).unwrap();
    copy_program(&sandbox.dir().join("longer"), &interpreter);
    Command::new("chmod").arg("755").arg(&interpreter).status().unwrap();
    build(&sandbox, held).ok().says("Running in");
    // Without F the kernel looks for it in the container.
    build(&sandbox, Some((&interpreter, ""))).fails(1).complains("which the image does not have");
}

#[test]
fn a_platform_without_commands_needs_no_interpreter() {
    let sandbox = Sandbox::new();
    sandbox.dockerfile("FROM scratch\nCOPY file /file\n");
    sandbox.file("file", "1");
    sandbox.outcrop(&["build", "--platform", "linux/s390x", "-t", "it", "."]).ok();
    let platform = sandbox.outcrop(&["inspect", "--format", "{{.Architecture}}", "it"]).ok();
    assert_eq!(platform.line(), "s390x");
}
