//! SIGINT and SIGTERM: the first asks the job to stop, the second ends outcrop.

use std::cell::RefCell;

use outcrop::job::Cancel;
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

#[derive(Default)]
pub(super) struct Signals(RefCell<Vec<SigId>>);

impl Signals {
    /// Idempotent.
    pub(super) fn catch(&self, cancel: &Cancel) {
        let mut registered = self.0.borrow_mut();
        if !registered.is_empty() {
            return;
        }
        for signal in [SIGINT, SIGTERM] {
            // In this order: the second signal finds the flag that the first has set.
            let exit = flag::register_conditional_shutdown(signal, 128 + signal, cancel.flag());
            let stop = flag::register(signal, cancel.flag());
            registered.extend(exit.into_iter().chain(stop));
        }
    }

    pub(super) fn release(&self) {
        for id in self.0.borrow_mut().drain(..) {
            low_level::unregister(id);
        }
    }
}
