//! `version`: which outcrop this is, and what it runs on.

use std::process::ExitCode;

use outcrop::error::Result;
use serde_json::{Value, json};

use super::format::Template;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A Go template, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["version"];
    const ABOUT: &'static str = "Show which outcrop this is";
    const EXAMPLE: &'static str = "outcrop version\noutcrop version --format '{{.Server.Version}}'";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let version = version();
        let mut out = context.out();
        match self.format.as_deref() {
            None => {
                for (part, title) in
                    [("Client", "Client: outcrop"), ("Server", "Server: the same program, no daemon")]
                {
                    out.line(title)?;
                    for (name, label) in SHOWN {
                        if let Some(value) = version[part][name].as_str() {
                            out.line(format_args!(" {label:<18} {value}"))?;
                        }
                    }
                }
            }
            Some("json") => out.line(version)?,
            Some(template) => out.line(Template::parse(template)?.render(&version)?)?,
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

const SHOWN: [(&str, &str); 4] =
    [("Version", "Version:"), ("Os", "OS:"), ("Arch", "Architecture:"), ("KernelVersion", "Kernel:")];

/// With Docker's names, so that scripts find what they look for on either side.
fn version() -> Value {
    let kernel = rustix::system::uname();
    let platform = outcrop::image::Platform::host();
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": platform.os,
        "Arch": platform.architecture,
    });
    let mut server = client.clone();
    server["KernelVersion"] = kernel.release().to_string_lossy().into();
    json!({ "Client": client, "Server": server })
}
