//! Which way a request goes: hosts of this machine, proxies and who is exempt from them. Values only; whoever calls
//! the library reads the environment.

use std::net::IpAddr;

use ureq::http::Uri;
use ureq::http::uri::Scheme;

/// As the variables of these names hold them (Go's `http.ProxyFromEnvironment`).
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// `http_proxy`, for plain HTTP: a URL, or `host:port`.
    pub http: Option<String>,
    /// `https_proxy`.
    pub https: Option<String>,
    /// `no_proxy`: hosts, `.domains`, addresses, CIDR ranges, each maybe with a port; `*` for all.
    pub exempt: Vec<String>,
}

impl Proxies {
    /// From `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in small letters or capitals, as `get` knows them.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            get(name).or_else(|| get(&name.to_ascii_uppercase())).filter(|value| !value.is_empty())
        };
        let all = either("all_proxy");
        let exempt = either("no_proxy").unwrap_or_default();
        Proxies {
            http: either("http_proxy").or_else(|| all.clone()),
            https: either("https_proxy").or(all),
            exempt: exempt.split([',', ' ']).filter(|rule| !rule.is_empty()).map(str::to_owned).collect(),
        }
    }

    /// The proxy for this URL. This machine itself is never behind one.
    pub(super) fn of(&self, url: &Uri) -> Option<&str> {
        let host = host_of(url);
        let https = url.scheme() == Some(&Scheme::HTTPS);
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        let exempt = || self.exempt.iter().any(|rule| matches(rule.trim(), host, port));
        if is_loopback(host) || exempt() {
            return None;
        }
        let proxy = if https { &self.https } else { &self.http };
        proxy.as_deref().filter(|proxy| !proxy.is_empty())
    }
}

/// Without the brackets of an IPv6 address.
pub(super) fn host_of(url: &Uri) -> &str {
    let host = url.host().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// For people: with its port, where it has one. Two registries of one host are told apart by that.
pub(super) fn place_of(url: &Uri) -> &str {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    authority.rsplit_once('@').map_or(authority, |(_, place)| place)
}

/// localhost, 127.0.0.0/8, ::1: where Docker, too, does without TLS.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A redirect that leaves the origin must not carry its credentials.
pub(super) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port =
        |url: &Uri| url.port_u16().or_else(|| url.scheme_str().map(|s| if s == "https" { 443 } else { 80 }));
    a.scheme() == b.scheme() && host_of(a).eq_ignore_ascii_case(host_of(b)) && port(a) == port(b)
}

/// Where `location`, as it stands in a header, leads from `base` (RFC 3986, 5.2, without dot segments).
pub(super) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?.trim();
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let absolute = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else if location.is_empty() || location.contains("://") {
        return None;
    } else {
        let (folder, _) = base.path().rsplit_once('/')?;
        format!("{scheme}://{authority}{folder}/{location}")
    };
    absolute.parse().ok()
}

fn matches(rule: &str, host: &str, port: u16) -> bool {
    if rule == "*" {
        return true;
    }
    if rule.is_empty() {
        return false;
    }
    if let (Some((network, bits)), Ok(address)) = (rule.split_once('/'), host.parse::<IpAddr>()) {
        return in_network(network, bits, address);
    }
    let (name, wanted) = match rule.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => match digits.parse::<u16>() {
            Ok(wanted) => (name, Some(wanted)),
            Err(_) => (rule, None),
        },
        _ => (rule, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let (Ok(a), Ok(b)) = (name.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        return a == b;
    }
    // `.example.com` and `*.example.com` are the domains below; `example.com` is itself and those.
    let (host, name) = (host.to_ascii_lowercase(), name.to_ascii_lowercase());
    let domain = name.trim_start_matches('*');
    match domain.strip_prefix('.') {
        Some(_) => host.ends_with(domain),
        None => host == domain || host.strip_suffix(domain).is_some_and(|head| head.ends_with('.')),
    }
}

fn in_network(network: &str, bits: &str, address: IpAddr) -> bool {
    let Ok(bits) = bits.parse::<u32>() else { return false };
    let within = |a: u128, b: u128, width: u32| {
        bits <= width && (bits == 0 || (a ^ b) << (128 - width) >> (128 - bits) == 0)
    };
    match (network.parse::<IpAddr>(), address) {
        (Ok(IpAddr::V4(a)), IpAddr::V4(b)) => within(u128::from(u32::from(a)), u128::from(u32::from(b)), 32),
        (Ok(IpAddr::V6(a)), IpAddr::V6(b)) => within(u128::from(a), u128::from(b), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn this_machine_is_known_by_all_its_names() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "128.0.0.1", "10.0.0.1", "::2", "", "0.0.0.0"] {
            assert!(!is_loopback(host), "{host}");
        }
        assert_eq!(place_of(&url("http://me:secret@a.test:5000/v2/")), "a.test:5000");
        assert_eq!(place_of(&url("https://a.test/v2/")), "a.test");
        assert_eq!(host_of(&url("http://[::1]:5000/v2/")), "::1");
    }

    #[test]
    fn proxies_go_by_scheme_and_exemptions() {
        let mut proxies = Proxies {
            http: Some("http://plain:1".into()),
            https: Some("http://secure:2".into()),
            exempt: Vec::new(),
        };
        assert_eq!(proxies.of(&url("https://example.com/")), Some("http://secure:2"));
        assert_eq!(proxies.of(&url("http://example.com/")), Some("http://plain:1"));
        assert_eq!(proxies.of(&url("http://127.0.0.1:5000/")), None);
        for (rule, target, exempt) in [
            ("example.com", "https://example.com/", true),
            ("example.com", "https://a.example.com/", true),
            ("example.com", "https://badexample.com/", false),
            (".example.com", "https://a.example.com/", true),
            (".example.com", "https://example.com/", false),
            ("*.example.com", "https://a.example.com/", true),
            ("EXAMPLE.com", "https://Example.COM/", true),
            ("example.com:8443", "https://example.com:8443/", true),
            ("example.com:8443", "https://example.com/", false),
            ("*", "https://anything.test/", true),
            ("10.0.0.0/8", "https://10.9.8.7/", true),
            ("10.0.0.0/8", "https://11.0.0.1/", false),
            ("10.0.0.0/33", "https://10.0.0.1/", false),
            ("0.0.0.0/0", "https://11.0.0.1/", true),
            ("fd00::/8", "https://[fd12::1]/", true),
            ("fd00::/8", "https://[fe80::1]/", false),
            ("192.168.1.1", "https://192.168.1.1/", true),
            ("", "https://example.com/", false),
            (" example.com ", "https://example.com/", true),
        ] {
            proxies.exempt = vec![rule.into()];
            assert_eq!(proxies.of(&url(target)).is_none(), exempt, "`{rule}` {target}");
        }
    }

    #[test]
    fn variables_are_read_in_either_case() {
        let get = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://a:1".to_owned()),
            "all_proxy" => Some("http://b:2".to_owned()),
            "no_proxy" => Some("x.test, .y.test".to_owned()),
            "http_proxy" => Some(String::new()),
            _ => None,
        };
        let proxies = Proxies::from_variables(get);
        assert_eq!(proxies.https.as_deref(), Some("http://a:1"));
        assert_eq!(proxies.http.as_deref(), Some("http://b:2"));
        assert_eq!(proxies.exempt, ["x.test", ".y.test"]);
    }

    #[test]
    fn locations_resolve_against_where_they_came_from() {
        let base = url("https://host:5000/v2/a/blobs/x?y=z");
        for (location, expected) in [
            ("https://cdn.test/b?sig=1", "https://cdn.test/b?sig=1"),
            ("http://cdn.test/b", "http://cdn.test/b"),
            ("//cdn.test/b", "https://cdn.test/b"),
            ("/b#fragment", "https://host:5000/b"),
            ("b", "https://host:5000/v2/a/blobs/b"),
            ("?q", "https://host:5000/v2/a/blobs/x?q"),
        ] {
            assert_eq!(resolve(&base, location), Some(url(expected)), "{location}");
        }
        for odd in ["", "ftp://host/x", "file:///etc/passwd", "http://"] {
            assert_eq!(resolve(&base, odd), None, "{odd}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let base = url("https://host/v2/");
        assert!(same_origin(&base, &url("https://HOST:443/x")));
        for other in ["http://host/", "https://host:444/", "https://cdn.host/"] {
            assert!(!same_origin(&base, &url(other)), "{other}");
        }
    }
}
