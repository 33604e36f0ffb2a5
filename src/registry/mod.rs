//! Registries, from the client's side (distribution-spec 1.1): pulling and pushing.
//!
//! HTTPS always, but for registries of this machine (localhost, 127.0.0.0/8, ::1), where HTTPS is tried first and plain
//! HTTP after, as Docker does. Nothing is asked in advance: the first refusal says what authorization it takes.

mod auth;
mod blob;
mod certificates;
mod download;
mod hosts;
mod keychain;
mod mirrored;
mod patience;
mod problem;
mod referrers;
mod route;
mod scope;
mod tags;
mod upload;
mod web;

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use ureq::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use ureq::http::{Method, Uri};

use self::auth::{Challenge, Grant, TokenAnswer, form, token_url};
use self::blob::BlobReader;
use self::problem::{Deed, Problem, refusal};
use self::route::{host_of, is_loopback, place_of, same_origin};
use self::scope::Scope;
use self::web::{Answer, Ask, Sending, Web};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST, MediaType, Reference};
use crate::job::Job;
use crate::transfer::{Given, Source};

pub use auth::Credentials;
pub use download::{Conditions, Fetched, download, fetch, percent_decoded, without_password};
pub use hosts::HostFiles;
pub(crate) use keychain::host_of as host_of_address;
pub use keychain::{Keychain, Login};
pub use mirrored::source;
pub use patience::Patience;
pub use referrers::referrers_tag;
pub use route::Proxies;
pub use upload::{Outgoing, Placed, Reopen};
pub use web::Timeouts;

/// Bytes of an error's or a token's JSON that are read.
const MAX_ANSWER: u64 = 1 << 20;

/// How a registry is spoken to.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For this registry; `None`: what the keychain has.
    pub credentials: Option<Credentials>,
    pub keychain: Keychain,
    /// What the host says of registries.
    pub hosts: HostFiles,
    pub proxies: Proxies,
    /// Plain HTTP will do, and certificates are not looked at.
    pub insecure: bool,
    /// Directories with certificates of single registries: `HOST[:PORT]/*.crt`, `*.cert` with `*.key`.
    pub certificates: Vec<PathBuf>,
    /// PEM certificates to trust instead of the system's.
    pub roots: Option<PathBuf>,
    pub timeouts: Timeouts,
    pub patience: Patience,
}

/// One registry, for one job. Keeps connections and tokens.
pub struct Registry {
    /// As names have it: `docker.io`.
    name: String,
    /// Who is really asked: `registry-1.docker.io`.
    host: String,
    /// Whose credentials are looked for.
    path: String,
    keychain: Keychain,
    /// Found when they are asked for.
    login: OnceLock<Option<Login>>,
    /// Plain HTTP will do.
    plain: bool,
    web: Web,
    base: OnceLock<Uri>,
    grants: Mutex<HashMap<Scope, Grant>>,
}

impl Registry {
    /// The registry of this name; nothing is sent yet.
    pub fn of(name: &Reference, options: &Options) -> Result<Self> {
        let insecure = options.insecure || options.hosts.rule(name)?.insecure;
        let options = &Options { insecure, ..options.clone() };
        let host = match name.host() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let own = match options.insecure {
            true => None,
            false => certificates::read(&options.certificates, name.host())?,
        };
        Ok(Registry {
            name: name.host().to_owned(),
            host: host.to_owned(),
            path: name.path().to_owned(),
            keychain: options.keychain.clone(),
            login: match &options.credentials {
                Some(given) => OnceLock::from(Some(Login::Password(given.clone()))),
                None => OnceLock::new(),
            },
            plain: options.insecure || (is_loopback(host_of(&at("https", host)?)) && own.is_none()),
            web: Web::of_registry(options, host, own.as_ref())?,
            base: OnceLock::new(),
            grants: Mutex::default(),
        })
    }

    fn host(&self) -> &str {
        &self.host
    }
    fn patience(&self) -> &Patience {
        self.web.patience()
    }

    /// `https://host/v2/`, or plain HTTP where that is all this machine's registry speaks.
    fn base(&self) -> Result<&Uri> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let secure = at("https", &self.host)?;
        let base = if !self.plain || self.web.probe(&secure).is_ok() {
            secure
        } else {
            let plain = at("http", &self.host)?;
            self.web.probe_again(&plain)?;
            plain
        };
        Ok(self.base.get_or_init(|| base))
    }

    fn at(&self, tail: &str) -> Result<Uri> {
        let base = self.base()?;
        let url = format!("{base}{tail}").parse();
        url.map_err(|cause| Error::invalid(format!("`{tail}` cannot be asked for")).because(cause))
    }

    /// GET `/v2/<tail>`, authorized as the registry wants it for pulling from `path`.
    fn ask(
        &self,
        job: &Job,
        path: &str,
        tail: &str,
        accept: Option<&str>,
        (from, to): (u64, Option<u64>),
    ) -> Result<Answer> {
        let url = self.at(tail)?;
        self.authorized(&Scope::pull(path), job, &Ask { accept, from, to, ..Ask::of(&url) }, Web::ask)
    }

    /// Sends what `ask` says by way of `send`, with what the registry wants to see for it. Credentials go to the registry
    /// alone, wherever the address leads.
    fn authorized(
        &self,
        scope: &Scope,
        job: &Job,
        ask: &Ask<'_>,
        send: impl Fn(&Web, &Job, &Ask<'_>) -> Result<Answer>,
    ) -> Result<Answer> {
        let base = self.base()?;
        if !same_origin(base, ask.url) {
            return send(&self.web, job, ask);
        }
        let mut grant = self.grants().get(scope).filter(|grant| grant.is_fresh()).cloned();
        let mut refused = 0;
        loop {
            let authorization = grant.as_ref().map(|grant| grant.header.as_str());
            let answer = send(&self.web, job, &Ask { authorization, ..ask.clone() })?;
            refused += 1;
            // Somebody else's refusal, after a redirect, is not answered with our token.
            if answer.status != 401 || refused > 2 || !same_origin(ask.url, &answer.url) {
                return Ok(answer);
            }
            match self.authorize(job, base, &answer, scope, grant.as_ref())? {
                Some(new) => grant = Some(new),
                None => return Ok(answer),
            }
        }
    }

    fn ask_elsewhere(&self, job: &Job, url: &Uri, (from, to): (u64, Option<u64>)) -> Result<Answer> {
        self.web.ask(job, &Ask { from, to, ..Ask::of(url) })
    }

    /// What the refusal asks for; `None` when there is nothing to answer it with. `used` has just been refused.
    fn authorize(
        &self,
        job: &Job,
        base: &Uri,
        refusal: &Answer,
        wanted: &Scope,
        used: Option<&Grant>,
    ) -> Result<Option<Grant>> {
        let headers =
            refusal.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let Some(challenge) = Challenge::parse(headers) else { return Ok(None) };
        // Held while asking: threads refused together need one token, not one each.
        let mut grants = self.grants();
        if let Some(other) = grants.get(wanted)
            && used.is_none_or(|used| used.header != other.header)
            && other.is_fresh()
        {
            return Ok(Some(other.clone()));
        }
        let login = self.login(job);
        let grant = match (challenge, login) {
            (Challenge::Basic, Some(Login::Password(credentials))) => Grant::basic(credentials),
            (_, Some(Login::Registry(token))) => Grant::given(token),
            (Challenge::Basic, Some(Login::Identity(_)) | None) => return Ok(None),
            (Challenge::Bearer { realm, service, scope }, _) => {
                let scope = Scope::parse(scope.as_deref().unwrap_or_default());
                self.token(job, base, &realm, service.as_deref(), &wanted.clone().and(&scope))?
            }
        };
        if used.is_some_and(|used| used.header == grant.header) {
            return Ok(None);
        }
        grants.insert(wanted.clone(), grant.clone());
        Ok(Some(grant))
    }

    /// Somebody who cannot be identified may be let in all the same.
    fn login(&self, job: &Job) -> Option<&Login> {
        let find = || {
            self.keychain.find(&self.name, &self.path, job).unwrap_or_else(|error| {
                if error.kind() == Kind::Cancelled {
                    return None;
                }
                let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
                job.warn(format!("{}{hint}; going on without credentials", error.one_line()));
                None
            })
        };
        self.login.get_or_init(find).as_ref()
    }

    /// `Denied` unless the registry takes the credentials.
    pub fn check_login(&self, job: &Job) -> Result<()> {
        let url = self.at("")?;
        let answer = self.authorized(&Scope::default(), job, &Ask::of(&url), Web::ask)?;
        self.accept(answer, "a login").map(drop)
    }

    fn token(
        &self,
        job: &Job,
        base: &Uri,
        realm: &str,
        service: Option<&str>,
        scope: &Scope,
    ) -> Result<Grant> {
        let login = self.login(job);
        let identity = match login {
            Some(Login::Identity(token)) => Some(token),
            _ => None,
        };
        let address = match identity {
            Some(_) => realm.to_owned(),
            None => token_url(realm, service, scope),
        };
        let url = address.parse::<Uri>().ok();
        let Some(url) =
            url.filter(|url| url.host().is_some() && matches!(url.scheme_str(), Some("http" | "https")))
        else {
            return Err(Error::invalid(format!(
                "{} sends for tokens to `{realm}`, which is no URL",
                self.host
            )));
        };
        if base.scheme_str() == Some("https") && url.scheme_str() != Some("https") {
            return Err(Error::new(
                Kind::Denied,
                format!("{} sends for tokens to plain HTTP at {}", self.host, host_of(&url)),
            ));
        }
        let asked = Instant::now();
        let body = self.whole(job, MAX_ANSWER, || {
            let answer = self.ask_for_token(job, &url, realm, service, scope, login)?;
            self.accept(answer, &format!("a token for {scope}"))
        });
        let parsed: TokenAnswer =
            serde_json::from_slice(&body?.1).context(|| format!("reading a token from {}", host_of(&url)))?;
        Grant::bearer(parsed, asked)
            .ok_or_else(|| Error::unavailable(format!("{} answers without a token", host_of(&url))))
    }

    fn ask_for_token(
        &self,
        job: &Job,
        url: &Uri,
        realm: &str,
        service: Option<&str>,
        scope: &Scope,
        login: Option<&Login>,
    ) -> Result<Answer> {
        match login {
            Some(Login::Identity(token)) => self.exchange(
                job,
                url,
                service,
                scope,
                &[("grant_type", "refresh_token"), ("refresh_token", token)],
            ),
            Some(Login::Password(credentials)) => {
                let basic = credentials.basic();
                let answer = self.web.ask(job, &Ask { authorization: Some(&basic), ..Ask::of(url) })?;
                match answer.status.as_u16() {
                    // It speaks OAuth2 alone.
                    404 | 405 => {
                        let url = realm.parse().unwrap_or_else(|_| url.clone());
                        let Credentials { user, password } = credentials;
                        let said = [("grant_type", "password"), ("username", user), ("password", password)];
                        self.exchange(job, &url, service, scope, &said)
                    }
                    _ => Ok(answer),
                }
            }
            Some(Login::Registry(_)) | None => self.web.ask(job, &Ask::of(url)),
        }
    }

    /// Docker's token specification, "Authenticating with OAuth2".
    fn exchange(
        &self,
        job: &Job,
        url: &Uri,
        service: Option<&str>,
        scope: &Scope,
        said: &[(&str, &str)],
    ) -> Result<Answer> {
        let said =
            said.iter().chain([&("client_id", "outcrop")]).map(|(name, value)| (*name, (*value).to_owned()));
        let service = service.map(|service| ("service", service.to_owned()));
        let scope = Some(("scope", scope.to_string())).filter(|(_, scope)| !scope.is_empty());
        let form = form(said.chain(service).chain(scope));
        let body = Sending {
            media_type: "application/x-www-form-urlencoded",
            length: form.len() as u64,
            range: None,
            bytes: &form.as_bytes(),
            secret: true,
        };
        self.web.ask(job, &Ask { method: Method::POST, body: Some(body), ..Ask::of(url) })
    }

    /// Success passes; all else becomes an error about `what`.
    fn accept(&self, answer: Answer, what: &str) -> Result<Answer> {
        if answer.status.is_success() { Ok(answer) } else { Err(self.refused(answer, what, Deed::Give)) }
    }

    /// An answer with all of its body, at most `limit` bytes: asked for again where that breaks off.
    fn whole(&self, job: &Job, limit: u64, ask: impl Fn() -> Result<Answer>) -> Result<(Answer, Vec<u8>)> {
        let mut failed = 0;
        loop {
            let mut answer = ask()?;
            match answer.read(limit) {
                Ok(raw) => return Ok((answer, raw)),
                Err(broken) if broken.kind() == Kind::Unavailable => {
                    failed += 1;
                    let Some(wait) = self.patience().wait(failed, None) else { return Err(broken) };
                    job.pause(wait)?;
                }
                Err(other) => return Err(other),
            }
        }
    }

    fn refused(&self, mut answer: Answer, what: &str, deed: Deed) -> Error {
        let body = answer.read(MAX_ANSWER).unwrap_or_default();
        let host = if place_of(&answer.url).is_empty() { self.host.as_str() } else { place_of(&answer.url) };
        refusal(answer.status.as_u16(), &Problem::parse(&body), host, what, deed)
    }

    fn grants(&self) -> MutexGuard<'_, HashMap<Scope, Grant>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A manifest's bytes as served, and what they were served as.
    fn read_manifest(
        &self,
        job: &Job,
        name: &Reference,
        selector: &str,
    ) -> Result<(Vec<u8>, Option<MediaType>)> {
        // Schema 1 is asked for last, to be refused by its name and not as "unknown".
        let accept: Vec<String> = MediaType::MANIFESTS
            .iter()
            .map(MediaType::to_string)
            .chain(Some("application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1".into()))
            .collect();
        let tail = format!("{}/manifests/{selector}", name.path());
        let (answer, raw) = self.whole(job, MAX_MANIFEST, || {
            let answer = self.ask(job, name.path(), &tail, Some(&accept.join(", ")), (0, None))?;
            self.accept(answer, &format!("the manifest `{selector}`"))
        })?;
        let said = answer.header(CONTENT_TYPE.as_str()).map(MediaType::from_header);
        if let Some(digest) =
            answer.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok())
            && said != Some(MediaType::DockerSchema1)
        {
            check_digest(&raw, &digest, &self.host)?;
        }
        Ok((raw, said))
    }
}

fn at(scheme: &str, host: &str) -> Result<Uri> {
    let url = format!("{scheme}://{host}/v2/").parse();
    url.map_err(|cause| Error::invalid(format!("`{host}` is not a registry's address")).because(cause))
}

fn check_digest(raw: &[u8], wanted: &Digest, host: &str) -> Result<()> {
    let got = Digest::of(raw);
    if got == *wanted {
        return Ok(());
    }
    Err(Error::corrupt(format!("{host} gives a manifest with the digest {got} for {wanted}")))
}

impl Source for Registry {
    fn place(&self) -> String {
        self.host.clone()
    }

    fn resolve(&self, job: &Job, name: &Reference) -> Result<(Descriptor, Vec<u8>)> {
        if name.host() != self.name {
            return Err(Error::internal(format!("`{name}` was asked of {}", self.name)));
        }
        let (raw, said) = self.read_manifest(job, name, &name.selector())?;
        if let Some(digest) = name.digest() {
            check_digest(&raw, digest, &self.host)?;
        }
        let said = said.unwrap_or_else(|| MediaType::Other(String::new()));
        Ok((Descriptor::of(said, &raw), raw))
    }

    fn manifest(&self, job: &Job, name: &Reference, wanted: &Descriptor) -> Result<Vec<u8>> {
        let (raw, _) = self.read_manifest(job, name, &wanted.digest.to_string())?;
        check_digest(&raw, &wanted.digest, &self.host)?;
        Ok(raw)
    }

    fn blob<'a>(
        &'a self,
        job: &'a Job,
        name: &Reference,
        wanted: &Descriptor,
        offset: u64,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(Box::new(BlobReader::open(self, job, name, wanted, offset)?))
    }

    fn tagged(&self, job: &Job, name: &Reference, tag: &str) -> Result<Option<(Descriptor, Vec<u8>)>> {
        match self.resolve(job, &name.clone().with_tag(tag)?) {
            Err(absent) if absent.kind() == Kind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    fn tags(&self, job: &Job, name: &Reference) -> Result<Vec<String>> {
        self.list_tags(job, name)
    }

    fn referrers(&self, job: &Job, name: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.list_referrers(job, name, subject)
    }

    fn part<'a>(
        &'a self,
        job: &'a Job,
        name: &Reference,
        wanted: &Descriptor,
        part: Range<u64>,
    ) -> Result<Given<'a>> {
        let end = part.end;
        let reader = BlobReader::open_part(self, job, name, wanted, part)?;
        Ok(if reader.end() == end { Given::Part(Box::new(reader)) } else { Given::Rest(Box::new(reader)) })
    }

    fn interrupt(&self) {
        self.web.shutdown();
    }
}
