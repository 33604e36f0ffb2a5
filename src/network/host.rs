//! `host`: the host's own network, under the host's own name.

use super::{Host, Network};
use crate::runtime;

pub(super) const ENTRY: &dyn Network = &OnHost;

struct OnHost;

impl Network for OnHost {
    fn name(&self) -> &'static str {
        "host"
    }
    fn namespace(&self) -> runtime::Network {
        runtime::Network::Host
    }
    fn hostname(&self, host: &Host, _id: &str) -> String {
        host.hostname.clone()
    }
    fn resolv_conf(&self, host: &Host) -> String {
        host.resolv_conf.clone()
    }
    fn hosts(&self, host: &Host) -> String {
        host.hosts.clone()
    }
}
