//! `none`: nothing but a loopback interface of its own.

use std::net::IpAddr;

use super::{Host, Network};
use crate::runtime;

pub(super) const ENTRY: &dyn Network = &Nowhere;

struct Nowhere;

/// What Docker writes.
const HOSTS: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

impl Network for Nowhere {
    fn name(&self) -> &'static str {
        "none"
    }
    fn namespace(&self) -> runtime::Network {
        runtime::Network::None
    }
    fn hostname(&self, _host: &Host, id: &str) -> String {
        id.chars().take(12).collect()
    }
    /// The host's, without resolvers that listen on the host's loopback: here, nobody does.
    fn resolv_conf(&self, host: &Host) -> String {
        let reachable = |line: &&str| {
            let mut words = line.split_whitespace();
            let address = match (words.next(), words.next()) {
                (Some("nameserver"), Some(address)) => address.split('%').next().unwrap_or(address),
                _ => return true,
            };
            address.parse::<IpAddr>().map_or(true, |address| !address.is_loopback())
        };
        host.resolv_conf.split_inclusive('\n').filter(reachable).collect()
    }
    fn hosts(&self, _host: &Host) -> String {
        HOSTS.into()
    }
}
