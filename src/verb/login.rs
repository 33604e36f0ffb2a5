//! `login`, `logout`: what registries know us by. Kept only once the registry has taken it.

use std::path::PathBuf;

use crate::error::{Error, Kind, Result};
use crate::image::Reference;
use crate::job::Job;
use crate::registry::{self, Credentials, Login, Options, Registry};

/// A registry, as people write it: `registry.example.com`, an address, nothing for Docker Hub.
#[derive(Clone, Debug)]
pub struct Server(Reference);

impl Server {
    pub fn parse(text: Option<&str>) -> Result<Server> {
        let text = text.unwrap_or("docker.io");
        let bad = || {
            Error::invalid(format!("`{text}` is no registry"))
                .hint("write HOST or HOST:PORT, as names of images have it")
        };
        let host = registry::host_of_address(text);
        let name: Reference = format!("{host}/x/x").parse().map_err(|cause: Error| bad().because(cause))?;
        if name.host() != host { Err(bad()) } else { Ok(Server(name)) }
    }

    pub fn host(&self) -> &str {
        self.0.host()
    }
}

/// What is kept of it already, if that is a user and a password.
pub fn known(server: &Server, options: &Options, job: &Job) -> Result<Option<Credentials>> {
    Ok(match options.keychain.find(server.host(), "", job)? {
        Some(Login::Password(credentials)) => Some(credentials),
        Some(Login::Identity(_) | Login::Registry(_)) | None => None,
    })
}

/// The file that keeps them from now on; `None`: a helper does.
pub fn login(
    server: &Server,
    credentials: &Credentials,
    options: &Options,
    job: &Job,
) -> Result<Option<PathBuf>> {
    check(server, credentials, options, job)?;
    options.keychain.store(server.host(), credentials, job)
}

/// Whether the registry takes them.
pub fn check(server: &Server, credentials: &Credentials, options: &Options, job: &Job) -> Result<()> {
    let options = Options { credentials: Some(credentials.clone()), ..options.clone() };
    let registry = Registry::of(&server.0, &options)?;
    registry.check_login(job).map_err(|error| match error.kind() {
        Kind::Denied => {
            Error::new(Kind::Denied, format!("{} does not take this user and password", server.host()))
                .hint("some registries want an access token in place of the password")
                .because(error)
        }
        _ => error,
    })
}

/// False: nothing was kept.
pub fn logout(server: &Server, options: &Options, job: &Job) -> Result<bool> {
    options.keychain.erase(server.host(), job)
}
