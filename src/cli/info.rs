//! `info`: what the store is, what keeps its layers and why, and what the host has.

use std::fmt::Display;
use std::process::ExitCode;

use outcrop::error::Result;
use outcrop::verb::info::{self, Info};
use serde_json::{Map, Value, json};

use super::format::{Template, size_binary};
use super::frame::Out;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A Go template, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["info", "system info"];
    const ABOUT: &'static str = "Show what the store is, its storage driver and why, and the host";
    const EXAMPLE: &'static str = "outcrop info\noutcrop info --format '{{.Driver}}'";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let template = match self.format.as_deref() {
            None | Some("json") => None,
            Some(text) => Some(Template::parse(text)?),
        };
        let info = info::info(context.engine()?)?;
        let mut out = context.out();
        match (&template, self.format.is_some()) {
            (Some(template), _) => out.line(template.render(&object(&info))?)?,
            (None, true) => out.line(object(&info))?,
            (None, false) => text(&mut out, &info)?,
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(out: &mut Out, info: &Info) -> Result<()> {
    out.line("Client: outcrop")?;
    out.line(format_args!(" Version:    {}", env!("CARGO_PKG_VERSION")))?;
    out.line("\nServer: the same program, no daemon")?;
    let mut line = |name: &str, value: &dyn Display| out.line(format_args!(" {name}: {value}"));
    line("Containers", &info.containers)?;
    line(" Running", &info.containers_running)?;
    line(" Paused", &0)?;
    line(" Stopped", &(info.containers - info.containers_running))?;
    line("Images", &info.images)?;
    line("Layers", &info.layers)?;
    line("Cache Records", &info.cache_records)?;
    line("Server Version", &env!("CARGO_PKG_VERSION"))?;
    // Scripts read this line: nothing else stands on it.
    line("Storage Driver", &info.driver)?;
    for (name, text) in &info.driver_status {
        line(&format!(" {name}"), text)?;
    }
    line(" Why", &info.reason())?;
    for (name, why) in info.others() {
        line(&format!(" Not {name}"), &why)?;
    }
    line("Layout", &info.layout)?;
    line("Cgroup Version", &info.host.cgroup_version)?;
    line("Runtimes", &info.runtimes.join(" "))?;
    line("Default Runtime", &info.default_runtime)?;
    line("Kernel Version", &info.host.kernel)?;
    line("Operating System", &info.host.operating_system)?;
    line("OSType", &info.host.platform.os)?;
    line("Architecture", &machine())?;
    line("CPUs", &info.host.cpus)?;
    line("Total Memory", &size_binary(info.host.memory))?;
    line("Name", &info.host.name)?;
    line("ID", &info.id)?;
    line("Root Dir", &info.root.display())?;
    line("Run Dir", &info.run_root.display())
}

/// As the kernel names it: Docker does.
fn machine() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}

/// With Docker's names, so that scripts find what they look for.
fn object(info: &Info) -> Value {
    let mut status: Vec<Value> = info.driver_status.iter().map(|(name, text)| json!([name, text])).collect();
    status.push(json!(["Reason", info.reason()]));
    status.extend(info.others().map(|(name, why)| json!([format!("Not {name}"), why])));
    let runtimes: Map<String, Value> =
        info.runtimes.iter().map(|name| ((*name).to_owned(), json!({ "path": name }))).collect();
    json!({
        "ID": info.id,
        "Containers": info.containers,
        "ContainersRunning": info.containers_running,
        "ContainersPaused": 0,
        "ContainersStopped": info.containers - info.containers_running,
        "Images": info.images,
        "Layers": info.layers,
        "CacheRecords": info.cache_records,
        "Driver": info.driver,
        "DriverStatus": status,
        "Layout": info.layout,
        // Docker knows no third answer.
        "CgroupVersion": info.host.cgroup_version.split(' ').next(),
        "Runtimes": runtimes,
        "DefaultRuntime": info.default_runtime,
        "KernelVersion": info.host.kernel,
        "OperatingSystem": info.host.operating_system,
        "OSType": info.host.platform.os,
        "Architecture": machine(),
        "NCPU": info.host.cpus,
        "MemTotal": info.host.memory,
        "Name": info.host.name,
        "DockerRootDir": info.root.to_string_lossy(),
        "RunRootDir": info.run_root.to_string_lossy(),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "SystemTime": outcrop::db::Time::now().to_string(),
        "Warnings": null,
    })
}
