//! HTTP as registries need it: redirects that leak nothing, patience, roots of trust, proxies.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ureq::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LOCATION, RANGE, RETRY_AFTER,
};
use ureq::http::uri::Scheme;
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, AsSendBody, Body, Proxy, SendBody, Timeout};

use super::Options;
use super::certificates::Own;
use super::patience::{Patience, retry_after};
use super::route::{Proxies, host_of, is_loopback, resolve, same_origin};
use crate::error::{Context as _, Error, Result};
use crate::job::Job;

/// As many as curl and Docker follow.
const MAX_REDIRECTS: usize = 10;

/// Below, nobody wonders.
const WORTH_SAYING: Duration = Duration::from_secs(3);

/// Where distributions keep the certificates of authorities; the first that is there counts.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Upper bounds of waiting; there is none for a whole transfer.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Name resolution, TCP and TLS.
    pub connect: Duration,
    /// Until an answer begins.
    pub answer: Duration,
    /// Without a single byte.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
            idle: Duration::from_secs(30),
        }
    }
}

pub(super) struct Web {
    /// This machine: certificates are not checked, as Docker does, nor would plain HTTP be safer.
    loopback: Agent,
    direct: Agent,
    by_proxy: Vec<(String, Agent)>,
    proxies: Proxies,
    patience: Patience,
    /// The registry itself, by host and port, where it is spoken to in a way of its own.
    own: Option<(String, Agent)>,
}

/// A request.
#[derive(Clone)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Uri,
    pub(super) accept: Option<&'a str>,
    /// Sent to the origin of `url` alone.
    pub(super) authorization: Option<&'a str>,
    /// The first byte wanted.
    pub(super) from: u64,
    /// The byte behind the last one wanted; `None`: to the end.
    pub(super) to: Option<u64>,
    pub(super) if_none_match: Option<&'a str>,
    pub(super) if_modified_since: Option<&'a str>,
    pub(super) body: Option<Sending<'a>>,
    /// Not over a connection that was kept: the peer may have closed it just now.
    pub(super) fresh: bool,
}

/// What a request carries.
#[derive(Clone)]
pub(super) struct Sending<'a> {
    pub(super) media_type: &'a str,
    /// In bytes.
    pub(super) length: u64,
    /// `5-9`: which bytes of the whole these are.
    pub(super) range: Option<String>,
    pub(super) bytes: &'a dyn Bytes,
    /// For the origin of the address alone.
    pub(super) secret: bool,
}

/// Opened for every attempt.
pub(super) trait Bytes {
    fn open(&self) -> Result<Box<dyn Read + '_>>;
}

impl Bytes for &[u8] {
    fn open(&self) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(*self))
    }
}

impl<'a> Ask<'a> {
    /// A GET.
    pub(super) fn of(url: &'a Uri) -> Self {
        Ask {
            method: Method::GET,
            url,
            accept: None,
            authorization: None,
            from: 0,
            to: None,
            if_none_match: None,
            if_modified_since: None,
            body: None,
            fresh: false,
        }
    }
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// Where redirects ended.
    pub(super) url: Uri,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// At most `limit` bytes; more are an error.
    pub(super) fn read(&mut self, limit: u64) -> Result<Vec<u8>> {
        let host = host_of(&self.url);
        let too_long = || Error::invalid(format!("{host} answers with more than {limit} bytes"));
        if self.body.content_length().is_some_and(|length| length > limit) {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        // Some compress whatever was asked for.
        let zipped = self.header(CONTENT_ENCODING.as_str()).is_some_and(|coding| {
            coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip")
        });
        let reader = self.body.as_reader();
        let reader: Box<dyn Read> =
            if zipped { Box::new(flate2::read::GzDecoder::new(reader)) } else { Box::new(reader) };
        let mut reader = io::Read::take(reader, limit + 1);
        io::Read::read_to_end(&mut reader, &mut bytes)
            .map_err(|cause| Error::unavailable(format!("the connection to {host} broke")).because(cause))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit { Err(too_long()) } else { Ok(bytes) }
    }
}

impl Web {
    pub(super) fn new(options: &Options) -> Result<Self> {
        Self::of_registry(options, "", None)
    }

    /// `host` with its port; nobody else gets what is its own.
    pub(super) fn of_registry(options: &Options, host: &str, own: Option<&Own>) -> Result<Self> {
        let Options { proxies, timeouts, patience, .. } = options;
        let roots = roots_of(options.roots.as_deref())?;
        let agent = |proxy: Option<Proxy>, check: bool, own: Option<&Own>| {
            let roots = own.map_or_else(|| roots.clone(), |own| with(&roots, &own.authorities));
            let tls = TlsConfig::builder()
                .root_certs(roots)
                .client_cert(own.and_then(|own| own.client.clone()))
                .disable_verification(!check)
                .build();
            Agent::config_builder()
                // The default would read the environment.
                .proxy(proxy)
                .tls_config(tls)
                .user_agent(concat!("outcrop/", env!("CARGO_PKG_VERSION")))
                .accept_encoding("identity")
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .max_idle_connections_per_host(8)
                .timeout_resolve(Some(timeouts.connect))
                .timeout_connect(Some(timeouts.connect))
                .timeout_recv_response(Some(timeouts.answer))
                .timeout_per_read(Some(timeouts.idle))
                .timeout_per_write(Some(timeouts.idle))
                .build()
                .new_agent()
        };
        let mut by_proxy = Vec::new();
        for text in [&proxies.http, &proxies.https].into_iter().flatten().filter(|text| !text.is_empty()) {
            let proxy = Proxy::new(text).map_err(|cause| {
                // The text may hold a password.
                Error::invalid("the proxy's address is not one").hint("write http://HOST:PORT").because(cause)
            })?;
            by_proxy.push((text.clone(), agent(Some(proxy), true, None)));
        }
        let own = match (own, options.insecure) {
            (None, false) => None,
            (own, insecure) => {
                let url = format!("https://{host}/").parse().ok();
                let proxy =
                    url.as_ref().and_then(|url| proxies.of(url)).and_then(|text| Proxy::new(text).ok());
                Some((host.to_owned(), agent(proxy, !insecure, own)))
            }
        };
        Ok(Web {
            loopback: agent(None, false, None),
            direct: agent(None, true, None),
            by_proxy,
            proxies: proxies.clone(),
            patience: *patience,
            own,
        })
    }

    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Makes calls that block in other threads fail, now and later.
    pub(super) fn shutdown(&self) {
        let own = self.own.iter().chain(&self.by_proxy).map(|(_, agent)| agent);
        for agent in [&self.loopback, &self.direct].into_iter().chain(own) {
            agent.clone().shutdown();
        }
    }

    /// Asks once. What may pass is `Unavailable`, here and as an answer.
    pub(super) fn once(&self, job: &Job, ask: &Ask<'_>) -> Result<Answer> {
        job.check()?;
        let outcome = self.follow(ask);
        job.check()?;
        outcome.map_err(|failure| failure.error(1))
    }

    /// Asks until there is an answer that is final: redirects are followed; 429, server errors and dropped connections
    /// are tried again. The last answer is returned whatever its status.
    pub(super) fn ask(&self, job: &Job, ask: &Ask<'_>) -> Result<Answer> {
        let mut failed = 0;
        loop {
            job.check()?;
            let outcome = self.follow(&Ask { fresh: ask.fresh || failed > 0, ..ask.clone() });
            job.check()?;
            failed += 1;
            let asked = match &outcome {
                Ok(answer) if is_passing(answer.status) => {
                    answer.header(RETRY_AFTER.as_str()).and_then(|text| retry_after(text, SystemTime::now()))
                }
                Err(Failure { cause: Some(cause), .. }) if may_pass(cause) => None,
                _ => return outcome.map_err(|failure| failure.error(failed)),
            };
            let Some(wait) = self.patience.wait(failed, asked) else {
                return outcome.map_err(|failure| failure.error(failed));
            };
            tracing::debug!(host = host_of(ask.url), failed, ?wait, "the registry falters");
            if wait >= WORTH_SAYING {
                job.warn(format!("{} falters; trying again in {} s", host_of(ask.url), wait.as_secs()));
            }
            job.pause(wait)?;
        }
    }

    /// For finding out what speaks there.
    pub(super) fn probe(&self, url: &Uri) -> Result<Answer> {
        self.follow(&Ask::of(url)).map_err(|failure| failure.error(1))
    }

    /// The same where nothing else is left to be tried: a connection that breaks says nothing.
    pub(super) fn probe_again(&self, url: &Uri) -> Result<Answer> {
        let mut failed = 0;
        loop {
            let failure = match self.follow(&Ask::of(url)) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            failed += 1;
            match self.patience.wait(failed, None).filter(|_| failure.cause.as_ref().is_some_and(may_pass)) {
                Some(wait) => std::thread::sleep(wait),
                None => return Err(failure.error(failed)),
            }
        }
    }

    fn follow(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let mut url = ask.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.attempt(ask, &url)?;
            let redirects = match answer.status.as_u16() {
                307 | 308 => true,
                // What was sent would not be sent again (RFC 9110, 15.4).
                301..=303 => ask.body.is_none(),
                _ => false,
            };
            if !redirects {
                return Ok(answer);
            }
            let next = answer.header(LOCATION.as_str()).and_then(|location| resolve(&url, location));
            let Some(next) = next else {
                return Err(Failure::said(format!("{} redirects to nowhere", host_of(&url))));
            };
            if url.scheme() == Some(&Scheme::HTTPS) && next.scheme() != Some(&Scheme::HTTPS) {
                return Err(Failure::said(format!(
                    "{} redirects to plain HTTP at {}",
                    host_of(&url),
                    host_of(&next)
                )));
            }
            if ask.body.as_ref().is_some_and(|body| body.secret) && !same_origin(ask.url, &next) {
                return Err(Failure::said(format!(
                    "{} sends credentials on to {}; they stay here",
                    host_of(&url),
                    host_of(&next)
                )));
            }
            tracing::debug!(from = host_of(&url), to = host_of(&next), "redirected");
            url = next;
        }
        Err(Failure::said(format!("{} redirects more than {MAX_REDIRECTS} times", host_of(ask.url))))
    }

    fn attempt(&self, ask: &Ask<'_>, url: &Uri) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(ask.method.clone()).uri(url.clone());
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(authorization) = ask.authorization.filter(|_| same_origin(ask.url, url)) {
            request = request.header(AUTHORIZATION, authorization);
        }
        match ask.to {
            Some(to) => request = request.header(RANGE, format!("bytes={}-{}", ask.from, to - 1)),
            None if ask.from > 0 => request = request.header(RANGE, format!("bytes={}-", ask.from)),
            None => {}
        }
        for (name, value) in [(IF_NONE_MATCH, ask.if_none_match), (IF_MODIFIED_SINCE, ask.if_modified_since)]
        {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let fail = |cause| Failure::of(url, cause);
        let agent = self.agent(url);
        let answer = match &ask.body {
            Some(sending) => {
                request = request.header(CONTENT_TYPE, sending.media_type);
                request = request.header(CONTENT_LENGTH, sending.length);
                if let Some(range) = &sending.range {
                    request = request.header(CONTENT_RANGE, range);
                }
                let mut reader = sending.bytes.open().map_err(Failure::ours)?;
                let request = request.body(SendBody::from_reader(&mut reader));
                run(agent, request.map_err(|cause| fail(cause.into()))?, ask.fresh)
            }
            None => run(agent, request.body(()).map_err(|cause| fail(cause.into()))?, ask.fresh),
        };
        let (parts, body) = answer.map_err(fail)?.into_parts();
        tracing::debug!(
            host = host_of(url),
            path = url.path(),
            status = parts.status.as_u16(),
            "{}",
            ask.method
        );
        Ok(Answer { status: parts.status, headers: parts.headers, body, url: url.clone() })
    }

    fn agent(&self, url: &Uri) -> &Agent {
        let authority = url.authority().map(|authority| authority.as_str());
        if let Some((_, agent)) = self.own.as_ref().filter(|(host, _)| Some(host.as_str()) == authority) {
            return agent;
        }
        if is_loopback(host_of(url)) {
            return &self.loopback;
        }
        let proxy = self.proxies.of(url);
        self.by_proxy
            .iter()
            .find(|(text, _)| Some(text.as_str()) == proxy)
            .map_or(&self.direct, |(_, agent)| agent)
    }
}

fn run(agent: &Agent, request: Request<impl AsSendBody>, fresh: bool) -> Result<Response<Body>, ureq::Error> {
    match fresh {
        true => agent.run(agent.configure_request(request).max_idle_age(Duration::ZERO).build()),
        false => agent.run(request),
    }
}

/// Why there is no answer.
struct Failure {
    message: String,
    hint: Option<&'static str>,
    /// `None` where the peer answered and the answer is the trouble.
    cause: Option<ureq::Error>,
    /// What was to be sent cannot be read.
    ours: Option<Box<Error>>,
}

impl Failure {
    fn said(message: String) -> Self {
        Failure { message, hint: None, cause: None, ours: None }
    }

    fn ours(error: Error) -> Self {
        Failure { message: String::new(), hint: None, cause: None, ours: Some(Box::new(error)) }
    }

    fn of(url: &Uri, cause: ureq::Error) -> Self {
        let cause = match cause {
            ureq::Error::Io(cause) if cause.get_ref().is_some_and(|inner| inner.is::<Error>()) => {
                return Self::ours(
                    Err::<(), _>(cause).context(|| "reading what is to be sent").expect_err("it is one"),
                );
            }
            cause => cause,
        };
        let peer = url.authority().map_or("", |authority| authority.as_str());
        // An authority may carry a password.
        let peer = peer.rsplit_once('@').map_or(peer, |(_, host)| host);
        let hint = match &cause {
            ureq::Error::HostNotFound => {
                "its name cannot be resolved: is it spelled right, and is there a network?"
            }
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                "is there a network, or a proxy to go through (HTTPS_PROXY)?"
            }
            ureq::Error::Io(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => {
                "nothing listens there: is the registry running, and is the port right?"
            }
            ureq::Error::Io(cause) if cause.kind() == io::ErrorKind::InvalidData => TLS_HINT,
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) => TLS_HINT,
            _ => "is there a network, or a proxy to go through (HTTPS_PROXY)?",
        };
        Failure {
            message: format!("{peer} cannot be reached"),
            hint: Some(hint),
            cause: Some(cause),
            ours: None,
        }
    }

    fn error(self, attempts: u32) -> Error {
        if let Some(ours) = self.ours {
            return *ours;
        }
        let message = match attempts {
            0 | 1 => self.message,
            many => format!("{}, tried {many} times", self.message),
        };
        let mut error = Error::unavailable(message);
        if let Some(hint) = self.hint {
            error = error.hint(hint);
        }
        match self.cause {
            Some(ureq::Error::Io(cause)) => error.because(cause),
            Some(cause) => error.because(cause),
            None => error,
        }
    }
}

const TLS_HINT: &str = "its certificate is not trusted, or it does not speak TLS: add its authority to the system's \
                        certificates; plain HTTP is spoken to this machine's own registries only";

/// Another attempt may do better.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// A connection that broke, not one that cannot be made.
fn may_pass(cause: &ureq::Error) -> bool {
    match cause {
        ureq::Error::Io(cause) => matches!(
            cause.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::TimedOut
                | io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted
        ),
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => false,
        ureq::Error::Timeout(_) | ureq::Error::BodyStalled => true,
        _ => false,
    }
}

/// The given bundle; else the system's, whose owner decides whom to trust; else Mozilla's list in the binary.
fn roots_of(given: Option<&Path>) -> Result<RootCerts> {
    if let Some(path) = given {
        let pem = fs::read(path).context(|| format!("reading the certificates in {}", path.display()))?;
        let certificates = certificates_in(&pem);
        if certificates.is_empty() {
            return Err(Error::invalid(format!("there is no certificate in {}", path.display())));
        }
        return Ok(certificates.into());
    }
    let system = BUNDLES.iter().map(PathBuf::from).find_map(|path| fs::read(path).ok());
    let certificates = system.map(|pem| certificates_in(&pem)).unwrap_or_default();
    Ok(if certificates.is_empty() { RootCerts::WebPki } else { certificates.into() })
}

fn with(roots: &RootCerts, more: &[Certificate<'static>]) -> RootCerts {
    match roots {
        _ if more.is_empty() => roots.clone(),
        RootCerts::Specific(known) => known.iter().chain(more).cloned().collect::<Vec<_>>().into(),
        _ => more.to_vec().into(),
    }
}

pub(super) fn certificates_in(pem: &[u8]) -> Vec<Certificate<'static>> {
    parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect()
}
