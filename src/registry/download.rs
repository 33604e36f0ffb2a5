//! A file from anywhere on the web.

use std::io::{Read as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use ureq::http::Uri;

use super::Options;
use super::route::host_of;
use super::web::{Ask, Web};
use crate::error::{Context as _, Error, Result};
use crate::job::{Event, Job};

/// All of it into `out`; how many bytes. Redirects are followed; a server that falters is asked again.
pub fn download(url: &str, options: &Options, out: &mut dyn Write, job: &Job) -> Result<u64> {
    let bad = || {
        Error::invalid(format!("`{url}` is no address to fetch from")).hint("write http://.. or https://..")
    };
    let address: Uri = url.parse().map_err(|cause| bad().because(cause))?;
    if !matches!(address.scheme_str(), Some("http" | "https")) {
        return Err(bad());
    }
    let web = Web::new(&options.proxies, options.roots.as_deref(), options.timeouts, options.patience)?;
    let ask = Ask { url: &address, accept: None, authorization: None, from: 0 };
    let mut answer = web.get(job, &ask).context(|| format!("fetching `{url}`"))?;
    if !answer.status.is_success() {
        return Err(Error::not_found(format!(
            "fetching `{url}`: {} answers {}",
            host_of(&answer.url),
            answer.status
        )));
    }
    let total = answer.body.content_length();
    let work = Work::start(job, format!("Downloading from {url}"), total);
    let broke = || format!("fetching `{url}`");
    let mut reader = answer.body.as_reader();
    let mut buffer = vec![0; 128 << 10];
    let mut done = 0_u64;
    loop {
        job.check()?;
        let read = reader.read(&mut buffer).context(broke)?;
        if read == 0 {
            break;
        }
        out.write_all(&buffer[..read]).context(|| format!("storing what `{url}` sends"))?;
        done += read as u64;
        job.report(Event::WorkProgress { id: work.id, done });
    }
    match total.filter(|total| *total != done) {
        None => Ok(done),
        Some(total) => Err(Error::unavailable(format!("`{url}` ends after {done} of {total} bytes"))),
    }
}

/// Reported while it lives.
struct Work<'j> {
    job: &'j Job,
    id: u64,
}

impl<'j> Work<'j> {
    fn start(job: &'j Job, what: String, total: Option<u64>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        job.report(Event::WorkStarted { id, what, total });
        Work { job, id }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.job.report(Event::WorkDone { id: self.id });
    }
}
