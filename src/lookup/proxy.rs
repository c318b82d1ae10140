//! `proxy:TYPE:NAME`: a table that Postfix's proxymap(8) opens and reads.
//!
//! A stream socket below queue_directory: the server names its protocol, and then answers attribute lists. It serves
//! the tables in proxy_read_maps, with its own rights. Follows `tests/spec/client-access.md`, section 4.3.
//!
//! Unlike Postfix, which tries for ever, and dies of a table that it may not read: after 15 s, or if the server
//! refuses, the table is unavailable, and the client is told to try later (`tests/spec/differences.md`, 19).

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::TableSettings;
use super::table::{ClientKeys, Keys, Problem, Table, unavailable};
use crate::log::{self, Shown, error_text};
use crate::sys::alarm::Bounded;
use crate::sys::socket::connect_stream;
use crate::wire::attr;

/// The limit of a session for all answers of one table. With the error delay a client still has its reply within 20 s.
const LIMIT: Duration = Duration::from_secs(15);

/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(3);

/// DICT_FLAG_PATTERN, in the answer to `open`.
const FLAG_PATTERN: u32 = 1 << 5;

/// DICT_FLAG_LOCK and DICT_FLAG_UTF8_REQUEST, in a lookup.
const FLAGS: u32 = 1 << 6 | 1 << 19;

/// proxymap's PROXY_STAT. 2 is RETRY, an error like all others.
mod status {
    pub const OK: u32 = 0;
    pub const NOKEY: u32 = 1;
    pub const BAD: u32 = 3;
    pub const DENY: u32 = 4;
    pub const CONFIG: u32 = 5;
}

/// The form of requests and answers. A server refuses an unknown form as an invalid request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Postfix up to 3.10: one attribute `flags`, for the table or for the request.
    Flags,
    /// Postfix 3.11: the table is named with `instance_flags`, and an answer to a lookup has `flags` too.
    InstanceFlags,
}

impl Form {
    /// The attributes of an answer, from `status` to the result.
    fn attributes(self, request: Request) -> &'static [&'static str] {
        match (self, request) {
            (_, Request::Open) => &["status", "flags"],
            (Form::Flags, Request::Lookup) => &["status", "value"],
            (Form::InstanceFlags, Request::Lookup) => &["status", "flags", "value"],
        }
    }
}

/// The requests to the server.
#[derive(Debug, Clone, Copy)]
enum Request {
    Open,
    Lookup,
}

impl Request {
    fn name(self) -> &'static str {
        match self {
            Request::Open => "open",
            Request::Lookup => "lookup",
        }
    }
}

/// A table of proxymap.
#[derive(Debug)]
pub(super) struct Proxy {
    name: String,
    /// The name without `proxy:`.
    table: String,
    service: String,
    /// Relative to queue_directory, inside and outside a chroot.
    socket: PathBuf,
    ipc_timeout: Duration,
    form: Cell<Form>,
    stream: RefCell<Option<BufReader<Bounded>>>,
    /// The server's kind of the table's keys, or the reason for its refusal.
    keys: OnceCell<Result<Keys, Vec<String>>>,
    ends: Cell<Option<Instant>>,
}

/// The server's answer.
#[derive(Debug)]
struct Answer {
    status: u32,
    value: Vec<u8>,
}

impl Proxy {
    pub(super) fn new(name: &str, table: &str, settings: &TableSettings) -> Proxy {
        Proxy {
            name: name.to_owned(),
            table: table.to_owned(),
            service: settings.proxymap_service_name.clone(),
            socket: PathBuf::from("private").join(&settings.proxymap_service_name),
            ipc_timeout: settings.ipc_timeout,
            form: Cell::new(Form::Flags),
            stream: RefCell::default(),
            keys: OnceCell::new(),
            ends: Cell::default(),
        }
    }

    /// Asks for the kind of the table's keys, which also shows whether the server serves it.
    fn contact(&self) -> Result<Keys, Vec<String>> {
        let mut answer = self.ask(Request::Open, None)?;
        if answer.status == status::BAD {
            self.form.set(Form::InstanceFlags);
            self.stream.take();
            answer = self.ask(Request::Open, None)?;
        }
        let flags = Shown(&answer.value).to_string().parse().unwrap_or(0_u32);
        match answer.status {
            status::OK if flags & FLAG_PATTERN != 0 => Ok(Keys::Pattern),
            status::OK => Ok(Keys::Fixed),
            status::BAD => Err(self.refused(&format!(
                "proxymap open failed for table \"{}\": invalid request",
                self.table
            ))),
            status::DENY => Err(self.denied()),
            _ => Err(Vec::new()),
        }
    }

    fn refused(&self, reason: &str) -> Vec<String> {
        unavailable(&self.name, reason).0
    }

    fn denied(&self) -> Vec<String> {
        let table = &self.table;
        self.refused(&format!(
            "proxymap service is not configured for table \"{table}\""
        ))
    }

    /// A request in the server's presumed form. `key` is that of a lookup.
    fn request(&self, request: Request, key: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        attr::put(&mut bytes, "request", request.name());
        attr::put(&mut bytes, "table", &self.table);
        let flags = if key.is_some() { FLAGS } else { 0 }.to_string();
        match (self.form.get(), request) {
            (Form::Flags, _) => attr::put(&mut bytes, "flags", &flags),
            (Form::InstanceFlags, Request::Open) => attr::put(&mut bytes, "instance_flags", "0"),
            (Form::InstanceFlags, Request::Lookup) => {
                attr::put(&mut bytes, "instance_flags", "0");
                attr::put(&mut bytes, "flags", &flags);
            }
        }
        if let Some(key) = key {
            attr::put(&mut bytes, "key", key);
        }
        attr::put_end(&mut bytes);
        bytes
    }

    /// Repeats a request until it has an answer with a known status.
    fn ask(&self, request: Request, key: Option<&str>) -> Result<Answer, Vec<String>> {
        let bytes = self.request(request, key);
        let attributes = self.form.get().attributes(request);
        let about = request.name();
        for attempt in 1.. {
            let warning = match self.converse(&bytes, attributes) {
                Ok(answer) if answer.status <= status::CONFIG => return Ok(answer),
                Ok(Answer { status, .. }) => format!(
                    "proxymap {about} failed for table \"{}\": unexpected reply status {status}",
                    self.table
                ),
                Err(Trouble::Connect(error)) => {
                    let (socket, text) = (self.socket.display(), error_text(&error));
                    if error.kind() == io::ErrorKind::PermissionDenied {
                        return Err(self.refused(&format!("connect to {socket}: {text}")));
                    }
                    format!("connect #{attempt} to subsystem {socket}: {text}")
                }
                Err(Trouble::Io(text)) => {
                    format!("dict_proxy_{about}: service {}: {text}", self.service)
                }
            };
            self.stream.take();
            log::warning!("{warning}");
            if self.left() <= PAUSE {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        let (service, seconds) = (&self.service, LIMIT.as_secs());
        Err(self.refused(&format!(
            "the {service} service has not answered within {seconds} seconds"
        )))
    }

    fn converse(&self, request: &[u8], attributes: &[&str]) -> Result<Answer, Trouble> {
        let mut stream = self.stream.borrow_mut();
        let stream = match &mut *stream {
            Some(stream) => stream,
            none => none.insert(self.connect()?),
        };
        let bounded = stream.get_mut();
        bounded.limit = self.ipc_timeout.min(self.left());
        bounded.write_all(request)?;
        let mut lists = Lists {
            stream,
            proxy: self,
        };
        let mut list = attr::read(&mut lists)?;
        // Servers since 3.6 begin with the name of their protocol.
        if let [(name, protocol)] = list.as_slice() {
            if name == b"protocol" {
                if protocol != b"proxymap_protocol" {
                    let protocol = Shown(protocol);
                    return Err(Trouble::Io(format!("unexpected protocol {protocol}")));
                }
                list = attr::read(&mut lists)?;
            }
        }
        let names = list.iter().map(|(name, _)| name.as_slice());
        let ([(_, status), .., (_, value)], true) = (
            list.as_slice(),
            names.eq(attributes.iter().map(|name| name.as_bytes())),
        ) else {
            return Err(Trouble::Io("malformed reply".to_owned()));
        };
        let status = std::str::from_utf8(status).ok();
        let Some(status) = status.and_then(|text| text.parse().ok()) else {
            return Err(Trouble::Io("malformed reply".to_owned()));
        };
        let value = value.clone();
        Ok(Answer { status, value })
    }

    fn connect(&self) -> Result<BufReader<Bounded>, Trouble> {
        let limit = self.left();
        let fd = connect_stream(&self.socket, limit).map_err(Trouble::Connect)?;
        Ok(BufReader::new(Bounded { fd, limit }))
    }

    /// The rest of this table's time.
    fn left(&self) -> Duration {
        let now = Instant::now();
        let ends = self.ends.get().unwrap_or(now + LIMIT);
        self.ends.set(Some(ends));
        ends.saturating_duration_since(now)
    }
}

impl Table for Proxy {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        if self.table.starts_with("cidr:") {
            return Keys::Networks;
        }
        match self.keys.get() {
            Some(Ok(keys)) => *keys,
            // A table without an answer is not asked again.
            Some(Err(_)) | None => Keys::Pattern,
        }
    }

    fn find(&self, key: &str, _: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem> {
        self.load()?;
        let answer = self.ask(Request::Lookup, Some(key));
        let Answer { status, value } = answer.map_err(Problem)?;
        match status {
            status::OK => Ok(Some(value)),
            status::NOKEY => Ok(None),
            status::BAD => Err(Problem::from(format!(
                "proxymap lookup failed for table \"{}\" key \"{key}\": invalid request",
                self.table
            ))),
            status::DENY => Err(Problem(self.denied())),
            // The server has logged the reason.
            _ => Err(Problem::default()),
        }
    }

    fn close(&self) {
        drop(self.stream.take());
    }

    fn load(&self) -> Result<(), Problem> {
        match self.keys.get_or_init(|| self.contact()) {
            Ok(_) => Ok(()),
            Err(warnings) => Err(Problem(warnings.clone())),
        }
    }
}

/// Why there is no answer, which another try may mend.
enum Trouble {
    Connect(io::Error),
    Io(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(if error.kind() == io::ErrorKind::TimedOut {
            "Connection timed out".to_owned()
        } else {
            error_text(&error)
        })
    }
}

impl From<attr::Error> for Trouble {
    fn from(error: attr::Error) -> Trouble {
        match error {
            attr::Error::Closed | attr::Error::Truncated(_) => {
                Trouble::Io("unexpected end-of-input".to_owned())
            }
            attr::Error::TooLong => Trouble::Io("unreasonably long reply".to_owned()),
            attr::Error::Io(error) => error.into(),
        }
    }
}

/// Reads one list from a stream and leaves the next one, within the table's time.
struct Lists<'a> {
    stream: &'a mut BufReader<Bounded>,
    proxy: &'a Proxy,
}

impl Read for Lists<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.proxy.left();
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.get_mut().limit = self.proxy.ipc_timeout.min(left);
        let arrived = self.stream.fill_buf()?;
        let nul = arrived.iter().position(|&b| b == 0);
        let length = nul.map_or(arrived.len(), |nul| nul + 1).min(buffer.len());
        let (Some(from), Some(to)) = (arrived.get(..length), buffer.get_mut(..length)) else {
            return Ok(0);
        };
        to.copy_from_slice(from);
        self.stream.consume(length);
        Ok(length)
    }
}
