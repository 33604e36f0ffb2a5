//! `logout`: credentials for a registry, forgotten.

use std::process::ExitCode;

use outcrop::error::{Context as _, Result};
use outcrop::job::Job;
use outcrop::verb::login::{self, Server};

use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["logout"];
    const ABOUT: &'static str = "Forget the credentials of a registry";
    const EXAMPLE: &'static str = "outcrop logout registry.example.com";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let server = Server::parse(self.server.as_deref())?;
        let erased = login::logout(&server, &super::registry::options(), &Job::silent());
        let mut out = context.out();
        match erased.context(|| format!("logging out from {}", server.host()))? {
            true => out.line(format!("Removing login credentials for {}", server.host()))?,
            false => out.line(format!("Not logged in to {}", server.host()))?,
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}
