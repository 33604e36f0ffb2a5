//! A real registry on loopback, images to fill it with, and a server between that misbehaves on demand.
#![allow(dead_code, reason = "each test uses the part it needs")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use outcrop::image::{Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, MediaType, Platform};

use crate::sandbox::{Sandbox, find_on_path};

/// Debian's docker-registry with its storage in a sandbox; ends when dropped.
pub(crate) struct RealRegistry {
    process: Child,
    pub(crate) address: SocketAddr,
    dir: PathBuf,
}

impl RealRegistry {
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        Self::start_with(sandbox, "")
    }

    /// With more lines for the `http` section, indented by two.
    pub(crate) fn start_with(sandbox: &Sandbox, http: &str) -> Self {
        let number = (0..).find(|n| !sandbox.dir().join(format!("registry{n}")).exists()).unwrap();
        let dir = sandbox.dir().join(format!("registry{number}"));
        fs::create_dir(&dir).unwrap();
        let config = dir.join("config.yml");
        let storage = dir.join("data");
        fs::write(
            &config,
            format!(
                "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n  \
                 secret: none\n{http}",
                storage.display()
            ),
        )
        .unwrap();
        let mut process = Command::new(find_on_path("docker-registry"))
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "docker-registry ended before it listened");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ',']).next().unwrap().parse().unwrap();
            }
        };
        // Nobody reads the rest; a full pipe would block it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        RealRegistry { process, address, dir }
    }

    /// Copies what the layout holds under `tag` to `name`, bytes unchanged.
    pub(crate) fn push(&self, layout: &Layout, name: &str) {
        self.push_with(layout, name, &["--preserve-digests", "--all"]);
    }

    pub(crate) fn push_with(&self, layout: &Layout, name: &str, options: &[&str]) {
        let output = Command::new(find_on_path("skopeo"))
            .args(["copy", "--insecure-policy", "--dest-tls-verify=false", "--quiet"])
            .args(options)
            .arg(format!("oci:{}:image", layout.dir.display()))
            .arg(format!("docker://{}/{name}", self.address))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// An image made for a test: layers of noise, gzipped.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Manifest,
    pub(crate) manifest_raw: Vec<u8>,
}

/// The config of an image without layers.
pub(crate) fn config_for(platform: &Platform) -> ImageConfig {
    ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    }
}

impl Image {
    /// One layer for each size, in bytes before compression (which noise does not suffer).
    pub(crate) fn of(platform: &str, sizes: &[usize]) -> Self {
        let platform: Platform = platform.parse().unwrap();
        let config = config_for(&platform);
        let tars = sizes.iter().enumerate();
        let tars = tars.map(|(number, size)| noise(&format!("{platform}/{number}"), *size));
        Self::made(&tars.collect::<Vec<_>>(), config)
    }

    /// Of these tars; the config gets their digests.
    pub(crate) fn made(tars: &[Vec<u8>], mut config: ImageConfig) -> Self {
        let mut layers = Vec::new();
        for tar in tars {
            config.rootfs.diff_ids.push(DiffId(Digest::of(tar)));
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(tar).unwrap();
            layers.push(gzip.finish().unwrap());
        }
        let config = config.to_bytes();
        let manifest = Manifest::new(
            Descriptor::of(MediaType::OciConfig, &config),
            layers
                .iter()
                .map(|layer| {
                    Descriptor::of(MediaType::from("application/vnd.oci.image.layer.v1.tar+gzip"), layer)
                })
                .collect(),
        );
        let manifest_raw = manifest.to_bytes();
        Image { layers, config, manifest, manifest_raw }
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor::of(MediaType::OciManifest, &self.manifest_raw)
    }

    pub(crate) fn platform(&self) -> Platform {
        ImageConfig::parse(&self.config).unwrap().platform()
    }

    fn blobs(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.layers.iter().chain([&self.config, &self.manifest_raw])
    }
}

/// The same bytes for the same seed; nothing compresses them.
pub(crate) fn noise(seed: &str, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 32);
    let mut block = Digest::of(seed.as_bytes());
    while bytes.len() < size {
        bytes.extend_from_slice(block.as_bytes());
        block = Digest::of(block.as_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Layers that are archives of one file each.
pub(crate) fn tarred(platform: &str, files: &[&str]) -> Image {
    let config = config_for(&platform.parse().unwrap());
    let tars: Vec<Vec<u8>> = files.iter().map(|name| tar_of(name)).collect();
    Image::made(&tars, config)
}

/// An archive of one file of noise.
pub(crate) fn tar_of(name: &str) -> Vec<u8> {
    tar_of_files(&[(name, 2000)])
}

/// An archive of files of noise, with their sizes.
pub(crate) fn tar_of_files(files: &[(&str, usize)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, size) in files {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend(noise(name, *size));
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// An OCI layout on disk whose entry is tagged `image`.
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
    /// Of an index that was made of several images.
    pub(crate) index_raw: Option<Vec<u8>>,
}

impl Layout {
    pub(crate) fn single(dir: &Path, image: &Image) -> Self {
        let layout = Layout { dir: dir.to_owned(), index_raw: None };
        layout.write(image.blobs(), image.descriptor());
        layout
    }

    /// One name for several platforms.
    pub(crate) fn index(dir: &Path, images: &[&Image]) -> Self {
        let entries = images.iter().map(|image| {
            let mut entry = image.descriptor();
            entry.platform = Some(image.platform().into());
            entry
        });
        let index_raw = Index::new(entries.collect()).to_bytes();
        let layout = Layout { dir: dir.to_owned(), index_raw: Some(index_raw.clone()) };
        let blobs = images.iter().flat_map(|image| image.blobs()).chain([&index_raw]);
        layout.write(blobs, Descriptor::of(MediaType::OciIndex, &index_raw));
        layout
    }

    fn write<'a>(&self, blobs: impl Iterator<Item = &'a Vec<u8>>, mut top: Descriptor) {
        let folder = self.dir.join("blobs/sha256");
        fs::create_dir_all(&folder).unwrap();
        for blob in blobs {
            fs::write(folder.join(Digest::of(blob).hex()), blob).unwrap();
        }
        top.annotations.insert("org.opencontainers.image.ref.name".into(), "image".into());
        fs::write(self.dir.join("index.json"), Index::new(vec![top]).to_bytes()).unwrap();
        fs::write(self.dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    pub(crate) fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
    pub(crate) fn is_upload(&self) -> bool {
        self.path.contains("/blobs/uploads/")
    }
    pub(crate) fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

/// What a server does with a request.
pub(crate) enum Reply {
    /// What the registry behind it answers.
    Forward,
    /// That, changed.
    Change(Box<dyn FnOnce(&mut Told) + Send>),
    Answer(Told),
    /// Gives so many bytes of what is sent to the registry behind it, then closes both connections.
    Break(usize),
    /// What the registry behind it answers to the request with this in its head in place of what stands there.
    Forge(&'static str, String),
    /// The answer, and nothing of what is sent is read.
    Early(Told),
    /// Closes without a word.
    Hang,
    /// Says nothing for so long, then closes.
    Silent(Duration),
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// The connection stays open after that, silent for so long.
    pub(crate) stall: Duration,
    pub(crate) chunked: bool,
    /// Said instead of the truth.
    pub(crate) length: Option<usize>,
}

impl Told {
    pub(crate) fn new(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Told { status, headers, body: body.into(), ..Told::default() }
    }

    fn write(&self, to: &TcpStream) -> std::io::Result<()> {
        self.write_with(to, "Connection: close\r\n")
    }

    /// With more lines for its head.
    pub(crate) fn write_with(&self, mut to: &TcpStream, more: &str) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} -\r\n{more}", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.chunked {
            head.push_str("Transfer-Encoding: chunked\r\n\r\n");
        } else {
            head.push_str(&format!("Content-Length: {}\r\n\r\n", self.length.unwrap_or(self.body.len())));
        }
        to.write_all(head.as_bytes())?;
        let body = &self.body[..self.cut.unwrap_or(self.body.len()).min(self.body.len())];
        if self.chunked {
            for part in body.chunks(1000) {
                write!(to, "{:x}\r\n", part.len())?;
                to.write_all(part)?;
                to.write_all(b"\r\n")?;
            }
            if self.cut.is_none() {
                to.write_all(b"0\r\n\r\n")?;
            }
        } else {
            to.write_all(body)?;
        }
        to.flush()?;
        std::thread::sleep(self.stall);
        Ok(())
    }
}

/// An HTTP server in the test's process, before a real registry or alone. One connection serves one request.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `reply` gets each request and how many of the same path and range came before it.
    pub(crate) fn start(
        upstream: Option<SocketAddr>,
        reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::<Asked>::new()));
        let over = Arc::new(AtomicBool::new(false));
        let reply = Arc::new(reply);
        let thread = std::thread::spawn({
            let (asked, over) = (asked.clone(), over.clone());
            move || {
                for connection in listener.incoming() {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    let (asked, reply) = (asked.clone(), reply.clone());
                    std::thread::spawn(move || {
                        let Some((request, mut body, connection)) = connection.ok().and_then(|connection| {
                            let (request, body) = read_request(&connection)?;
                            Some((request, body, connection))
                        }) else {
                            return;
                        };
                        let before = {
                            let mut asked = asked.lock().unwrap();
                            asked.push(request.clone());
                            let same =
                                |other: &&Asked| other.path == request.path && other.method == request.method;
                            asked.iter().filter(same).count() - 1
                        };
                        // Clients hang up when they have seen enough.
                        let _gone =
                            serve(&connection, &mut body, upstream, &request, reply(&request, before));
                    });
                }
            }
        });
        Server { address, asked, over, thread: Some(thread) }
    }

    /// Before a registry, honest.
    pub(crate) fn before(registry: &RealRegistry) -> Self {
        Self::start(Some(registry.address), |_, _| Reply::Forward)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _wake = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

pub(crate) fn read_request(connection: &TcpStream) -> Option<(Asked, BufReader<TcpStream>)> {
    connection.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let mut first = [0];
    // A TLS handshake begins with byte 22: not spoken here.
    if connection.peek(&mut first).ok()? == 0 || first[0] == 22 {
        return None;
    }
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut lines = reader.by_ref().lines();
    let line = lines.next()?.ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some((Asked { method, path, headers }, reader))
}

fn serve(
    connection: &TcpStream,
    body: &mut BufReader<TcpStream>,
    upstream: Option<SocketAddr>,
    request: &Asked,
    reply: Reply,
) -> std::io::Result<()> {
    let length: u64 = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut sent = body.take(length);
    match reply {
        Reply::Forward => forward(upstream, request, &mut sent)?.write(connection),
        Reply::Change(change) => {
            let mut told = forward(upstream, request, &mut sent)?;
            change(&mut told);
            told.write(connection)
        }
        Reply::Forge(name, value) => {
            let mut forged = request.clone();
            forged.headers.retain(|(known, _)| known != name);
            forged.headers.push((name.to_owned(), value));
            forward(upstream, &forged, &mut sent)?.write(connection)
        }
        Reply::Answer(told) => {
            std::io::copy(&mut sent, &mut std::io::sink())?;
            told.write(connection)
        }
        Reply::Early(told) => told.write(connection),
        Reply::Break(bytes) => {
            let mut to = TcpStream::connect(upstream.expect("a registry behind"))?;
            to.write_all(head_of(request).as_bytes())?;
            std::io::copy(&mut sent.take(bytes.try_into().unwrap()), &mut to)?;
            Ok(())
        }
        Reply::Hang => Ok(()),
        Reply::Silent(time) => {
            std::thread::sleep(time);
            Ok(())
        }
    }
}

fn head_of(request: &Asked) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", request.method, request.path);
    for (name, value) in &request.headers {
        if name != "connection" {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    format!("{head}\r\n")
}

pub(crate) fn forward(
    upstream: Option<SocketAddr>,
    request: &Asked,
    sent: &mut impl Read,
) -> std::io::Result<Told> {
    let mut to = TcpStream::connect(upstream.expect("a registry behind"))?;
    to.write_all(head_of(request).as_bytes())?;
    std::io::copy(sent, &mut to)?;
    let mut answer = Vec::new();
    to.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole answer");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| !["content-length", "connection"].contains(&name.to_ascii_lowercase().as_str()))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Ok(Told { status, headers, body: answer[end + 4..].to_vec(), ..Told::default() })
}
