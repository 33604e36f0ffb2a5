//! What a registry of one's own takes (docker's and containers' certs.d): `DIR/HOST[:PORT]/` with authorities in `*.crt` and our
//! own certificate in `NAME.cert` with `NAME.key`.

use std::fs;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PrivateKey};

use super::web::certificates_in;
use crate::error::{Context as _, Error, Result};

#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    /// Besides those of the system.
    pub(super) authorities: Vec<Certificate<'static>>,
    pub(super) client: Option<ClientCert>,
}

/// Of this host, port included where it is no usual one; `None` where no directory has anything for it.
pub(super) fn read(dirs: &[PathBuf], host: &str) -> Result<Option<Own>> {
    let mut own = Own::default();
    let mut any = false;
    for dir in dirs {
        let dir = dir.join(host);
        let doing = || format!("reading the certificates in {}", dir.display());
        let entries = match fs::read_dir(&dir) {
            Err(cause)
                if matches!(
                    cause.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                continue;
            }
            entries => entries.context(doing)?,
        };
        let mut files = Vec::new();
        for entry in entries {
            files.push(entry.context(doing)?.path());
        }
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => own.authorities.extend(certificates(&file)?),
                Some("cert") => own.client = Some(client(&file)?),
                Some("key") if !file.with_extension("cert").exists() => {
                    return Err(Error::invalid(format!("{} has no certificate beside it", file.display()))
                        .hint("a key NAME.key belongs to a certificate NAME.cert; authorities end in .crt"));
                }
                _ => continue,
            }
            any = true;
        }
    }
    Ok(any.then_some(own))
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>> {
    let pem = fs::read(file).context(|| format!("reading {}", file.display()))?;
    let found = certificates_in(&pem);
    if found.is_empty() {
        return Err(Error::invalid(format!("there is no certificate in {}", file.display())));
    }
    Ok(found)
}

fn client(file: &Path) -> Result<ClientCert> {
    let key = file.with_extension("key");
    let pem = fs::read(&key).context(|| format!("reading the key of {}", file.display()))?;
    let key = PrivateKey::from_pem(&pem)
        .map_err(|cause| Error::invalid(format!("there is no key in {}", key.display())).because(cause))?;
    Ok(ClientCert::new_with_certs(&certificates(file)?, key))
}
