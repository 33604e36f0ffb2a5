//! What older kernels do another way, under Debian's 6.1: one test of this host starts a machine and runs there what is marked
//! for it.

use std::process::Command;
use std::time::Duration;

use crate::vm_kit::Machine;

const INSIDE: &str = "under_an_old_kernel::";

#[test]
fn older_kernels_carry_what_newer_ones_do() {
    let binary = std::env::current_exe().unwrap();
    let listed = Command::new(&binary).args(["--ignored", "--list", INSIDE]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let expected = listed.lines().filter(|line| line.ends_with(": test")).count();
    assert!(expected > 0, "{listed}");

    let script = "mkdir /run/tests && TMPDIR=/run/tests exec \"$0\" --ignored --test-threads 2 \"$1\"";
    let machine = Machine::new().modules("btrfs loop").memory(2048).limit(Duration::from_secs(1200));
    let outcome = machine.run(&["sh", "-c", script, binary.to_str().unwrap(), INSIDE]).ok();
    outcome.says(&format!("test result: ok. {expected} passed; 0 failed; 0 ignored;"));
}

mod under_an_old_kernel {
    use std::fs;

    use outcrop::image::Platform;

    use crate::registry_kit::{Image, Layout, config_for, tar_of_files};
    use crate::sandbox::{Sandbox, build_offline};

    /// mount(2) takes one page of options there.
    #[test]
    #[ignore = "runs in a machine"]
    fn images_of_hundreds_of_layers_run_and_are_built_on() {
        let sandbox = Sandbox::new().driver("overlay2");
        let mut tars = vec![fs::read(sandbox.busybox_archive()).unwrap()];
        tars.extend((1..600).map(|n| tar_of_files(&[(&format!("only-{n}"), 1), ("size", n)])));
        for depth in [300, 600] {
            let (layout, name) = (sandbox.dir().join(format!("layout-{depth}")), format!("deep:{depth}"));
            Layout::single(&layout, &Image::made(&tars[..depth], config_for(&Platform::host())));
            let loaded = sandbox.outcrop(&["load", "-i", layout.to_str().unwrap()]).ok().line();
            sandbox.outcrop(&["tag", loaded.rsplit(' ').next().unwrap(), &name]).ok();
            let look = "ls / | grep -c ^only-; wc -c < /size; echo new > /only-1; cat /only-1";
            let run = ["run", "--rm", "--network", "none", &name, "/bin/sh", "-c", look];
            let above = (depth - 1).to_string();
            assert_eq!(sandbox.outcrop(&run).ok().lines(), [&above, &above, "new"]);
            let left = depth - 2;
            sandbox.dockerfile(&format!(
                "FROM {name}\nRUN rm /only-2 && [ $(ls / | grep -c ^only-) = {left} ]\n"
            ));
            build_offline(&sandbox, &[]).ok();
        }
    }
}
