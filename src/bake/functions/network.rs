//! Functions of network prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Entry, MANY, Result};
use crate::bake::value::Value;

pub(super) const TABLE: &[Entry] = &[
    Entry("cidrhost", 2, 2, |a, _| {
        let prefix = Prefix::parse(&a[0].to_text()?)?;
        let number = a[1].to_number()?.int().ok_or("a whole number is needed")?;
        let room = prefix.width - prefix.length;
        let fits = room >= 127 || number.unsigned_abs() <= (1u128 << room) - u128::from(number >= 0);
        if !fits {
            return Err(format!("host {number} does not fit into {room} bits"));
        }
        let host = match u128::try_from(number) {
            Ok(host) => host,
            // From the end.
            Err(_negative) => prefix.host_mask() - (number.unsigned_abs() - 1),
        };
        Ok(Value::String(prefix.address(prefix.base | host)))
    }),
    Entry("cidrnetmask", 1, 1, |a, _| {
        let prefix = Prefix::parse(&a[0].to_text()?)?;
        match prefix.width {
            32 => Ok(Value::String(prefix.address(!prefix.host_mask() & u128::from(u32::MAX)))),
            _ => Err("IPv6 has no netmasks".into()),
        }
    }),
    Entry("cidrsubnet", 3, 3, |a, _| {
        let prefix = Prefix::parse(&a[0].to_text()?)?;
        let number = a[2].to_size()? as u128;
        Ok(Value::String(prefix.subnet(a[1].to_size()?, number)?))
    }),
    Entry("cidrsubnets", 1, MANY, |a, _| {
        let prefix = Prefix::parse(&a[0].to_text()?)?;
        let mut next = prefix.base;
        let mut subnets = Vec::new();
        for bits in &a[1..] {
            let length = prefix.longer(bits.to_size()?)?;
            let size = 1u128.checked_shl(prefix.width - length).unwrap_or(0);
            // Up to the next multiple of its own size.
            let start = next.checked_add(size.wrapping_sub(1)).map(|end| end & !size.wrapping_sub(1));
            let end = start.and_then(|start| start.checked_add(size.wrapping_sub(1)));
            let (Some(start), Some(end)) = (start, end) else { return Err(FULL.into()) };
            if end > prefix.base | prefix.host_mask() {
                return Err(FULL.into());
            }
            subnets.push(Value::String(format!("{}/{length}", prefix.address(start))));
            next = end.checked_add(1).ok_or(FULL)?;
        }
        Ok(Value::List(subnets))
    }),
];

const FULL: &str = "the prefix has no room for all of them";

struct Prefix {
    base: u128,
    length: u32,
    /// 32 or 128.
    width: u32,
}

impl Prefix {
    fn parse(text: &str) -> Result<Prefix> {
        let wrong = || format!("`{text}` is not a prefix, as 10.0.0.0/8");
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let length: u32 = length.parse().ok().ok_or_else(wrong)?;
        let (base, width) = match address.parse().ok().ok_or_else(wrong)? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        if length > width {
            return Err(wrong());
        }
        let mut prefix = Prefix { base, length, width };
        prefix.base &= !prefix.host_mask();
        Ok(prefix)
    }

    fn host_mask(&self) -> u128 {
        1u128.checked_shl(self.width - self.length).map_or(u128::MAX, |size| size - 1)
    }

    fn longer(&self, bits: usize) -> Result<u32> {
        let length = u32::try_from(bits).ok().and_then(|bits| self.length.checked_add(bits));
        length
            .filter(|length| *length <= self.width)
            .ok_or_else(|| format!("{bits} more bits do not fit behind /{}", self.length))
    }

    fn subnet(&self, bits: usize, number: u128) -> Result<String> {
        let length = self.longer(bits)?;
        if bits < 128 && number >= 1 << bits {
            return Err(format!("subnet {number} does not fit into {bits} bits"));
        }
        let offset = number.checked_shl(self.width - length).unwrap_or(0);
        Ok(format!("{}/{length}", self.address(self.base | offset)))
    }

    fn address(&self, address: u128) -> String {
        match self.width {
            32 => Ipv4Addr::from(u32::try_from(address).unwrap_or(u32::MAX)).to_string(),
            _ => Ipv6Addr::from(address).to_string(),
        }
    }
}
