//! How long a storage driver takes to make a snapshot, mount it and remove it again, by the depth of its stack.
//!
//! `latency DRIVER[,volatile|,kernel] DIR DEPTH...` prints for each depth the median of 51 rounds, in milliseconds. `volatile`: mounted as
//! for a step of a build, so that an overlay that is unmounted does not wait for the disk below it, as a container's does.
//! `kernel`: such a mount and its end alone, of a snapshot that stays, which is what the kernel takes of all that.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that cannot go on has failed")]

use std::path::Path;
use std::time::Instant;

use outcrop::snapshot::driver::{self, Driver, Options, Setting, Shape, SnapshotId};
use outcrop::sys::mount::{Mount, detached};

const ROUNDS: u64 = 51;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [name, dir, depths @ ..] = &words[..] else { panic!("usage: latency DRIVER DIR DEPTH...") };
    let (name, way) = match name.split_once(',') {
        None => (&name[..], Way::Container),
        Some((name, "volatile")) => (name, Way::Step),
        Some((name, "kernel")) => (name, Way::Kernel),
        Some((_, other)) => panic!("`{other}` is neither volatile nor kernel"),
    };
    let options = Options::default();
    let setting = Setting { root: Path::new(dir), options: &options };
    let driver = driver::select(&setting, Some(name)).unwrap().driver;
    let mut stack = Vec::new();
    let mut layers = 0;
    for depth in depths.iter().map(|depth| depth.parse::<u64>().unwrap()) {
        while layers < depth {
            layers += 1;
            grow(&*driver, &mut stack, SnapshotId(layers));
        }
        println!("{name} {depth} {:.3}", median(&*driver, &stack, way));
    }
}

/// One layer more, with a file of its own.
fn grow(driver: &dyn Driver, stack: &mut Vec<SnapshotId>, id: SnapshotId) {
    driver.create(id, stack).unwrap();
    let mounted = detached(&driver.mount(id, stack).unwrap()).unwrap();
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    drop(rustix::fs::openat(&mounted, format!("file-{id}"), flags, rustix::fs::Mode::RUSR).unwrap());
    drop(mounted);
    driver.release(id).unwrap();
    driver.seal(id).unwrap();
    if driver.shape() == Shape::Stacked {
        stack.clear();
    }
    stack.insert(0, id);
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Container,
    Step,
    Kernel,
}

/// Milliseconds.
fn median(driver: &dyn Driver, stack: &[SnapshotId], way: Way) -> f64 {
    let round = |number: u64| {
        let (id, mut start) = (SnapshotId(1_000_000 + number), Instant::now());
        driver.create(id, stack).unwrap();
        let mut mount = driver.mount(id, stack).unwrap();
        if let Mount::Overlay { volatile, .. } = &mut mount {
            *volatile = way != Way::Container;
        }
        if way == Way::Kernel {
            // The first one makes what the kernel wants in the work directory.
            drop(detached(&mount).unwrap());
            start = Instant::now();
        }
        drop(detached(&mount).unwrap());
        let mounted = start.elapsed();
        driver.release(id).unwrap();
        driver.remove(id).unwrap();
        (if way == Way::Kernel { mounted } else { start.elapsed() }).as_secs_f64() * 1000.0
    };
    let mut times: Vec<f64> = (0..ROUNDS).map(round).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
