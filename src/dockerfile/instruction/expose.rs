//! `EXPOSE port[-port][/protocol]...`: documentation of where a container listens.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::{Effect, Entry, Instruction, Step};
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::{Statement, Word};

pub(super) static ENTRY: Entry = Entry { keyword: "EXPOSE", flags: &[], parse };

#[derive(Debug)]
struct Expose(Vec<Word>);

fn parse(statement: &Statement) -> Result<Instruction, Problem> {
    let mut words = statement.blank_separated();
    if words.is_empty() {
        return Err(statement.needs("at least one port", "write `EXPOSE 80` or `EXPOSE 53/udp`"));
    }
    words.sort_by(|a, b| a.text.cmp(&b.text));
    Ok(Instruction::Step(Box::new(Expose(words))))
}

impl Step for Expose {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let mut told = Vec::new();
        for word in &self.0 {
            for text in stage.words(word)? {
                let (ports, protocol) = ports(&text).map_err(|message| {
                    Problem::invalid(word.span.clone(), message)
                        .hint("write `80`, `8000-8010` or `53/udp`; the protocols are tcp, udp and sctp")
                })?;
                told.extend(ports.map(|port| format!("{port}/{protocol}")));
            }
        }
        let exposed = stage.config_mut().exposed_ports.get_or_insert_default();
        for port in &told {
            exposed.insert(port.clone(), Value::Object(Map::new()));
        }
        Effect::config(format!("EXPOSE [{}]", told.join(" ")))
    }
}

/// An address and ports of the host before the container's are accepted and mean nothing (Docker).
fn ports(text: &str) -> Result<(RangeInclusive<u16>, String), String> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let (host, address) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        _ => return Err(format!("`{protocol}` is no protocol")),
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(format!("`{address}` is no address"));
    }
    let ports = range(port).ok_or_else(|| format!("`{text}` is no port"))?;
    if !host.is_empty() {
        let host = range(host).ok_or_else(|| format!("`{host}` is no port"))?;
        if ports.len() != 1 && ports.len() != host.len() {
            return Err(format!("`{text}` names two ranges of different lengths"));
        }
    }
    Ok((ports, protocol))
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then_some(first..=last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_all_their_forms() {
        for (text, expected) in [
            ("80", "80..=80 tcp"),
            ("80/UDP", "80..=80 udp"),
            ("8000-8002/sctp", "8000..=8002 sctp"),
            ("8080:80", "80..=80 tcp"),
            ("127.0.0.1:8080:80/tcp", "80..=80 tcp"),
            ("65535", "65535..=65535 tcp"),
            ("80/", "80..=80 tcp"),
            (":80", "80..=80 tcp"),
            ("8000-8010:80", "80..=80 tcp"),
            ("[::1]::80-81", "80..=81 tcp"),
            ("::1:8080:80", "80..=80 tcp"),
        ] {
            let (ports, protocol) = ports(text).unwrap();
            assert_eq!(format!("{ports:?} {protocol}"), expected);
        }
        for text in [
            "",
            "http",
            "65536",
            "-1",
            "+80",
            "80-",
            "90-80",
            "1-2-3",
            "80/icmp",
            "80/tcp/udp",
            "a:80",
            "host:1:80",
            "80-81:1-3",
            "/tcp",
        ] {
            assert!(ports(text).is_err(), "{text}");
        }
    }
}
