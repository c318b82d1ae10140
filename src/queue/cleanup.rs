//! The queue method `cleanup`: hands the message to Postfix's cleanup(8).
//!
//! A stream socket below queue_directory: cleanup sends the queue id, this program sends flags and records, the last of
//! type E, and cleanup sends a status. A conversation that ends before E leaves nothing in the queue; an E without a
//! status may leave a message, and counts as not queued. The content is held back to the end, because the envelope
//! comes before it and our header depends on the envelope. Follows `tests/spec/cleanup.md`, sections 1 to 6. Answers
//! are read in `queue::answers`, content becomes records in `queue::content`.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{self, Config, ReceiveOverrides};
use crate::jail::Need;
use crate::log;
use crate::sys::alarm::{self, Bounded};
use crate::sys::socket;
use crate::wire::attr;
use crate::wire::record::{DATA_LIMIT, Type, Writer};
use crate::wire::verp::Sender;

use super::received::Received;
use super::{Committed, Origin, Queue, Unavailable, Verdict, answers, content, put_attributes};

/// The limit for connecting. Unlike Postfix, which tries for 100 s: QMQP clients wait 60 s for their answer
/// (`tests/spec/differences.md`, 4).
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// The pause between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_secs(3);

/// The limit for connecting and the greeting together. Unlike Postfix, which waits ipc_timeout for the greeting
/// (`tests/spec/differences.md`, 4).
const GREETING_LIMIT: Duration = Duration::from_secs(45);

/// The flags of the conversation, with cleanup's names without their prefix.
mod flag {
    pub const FILTER: u32 = 1 << 1;
    pub const BCC_OK: u32 = 1 << 4;
    pub const MAP_OK: u32 = 1 << 5;
    pub const MILTER: u32 = 1 << 6;
    pub const AUTOUTF8: u32 = 1 << 9;
}

/// What main.cf sets for the conversation.
#[derive(Debug)]
pub struct CleanupSettings {
    /// Relative to queue_directory, inside and outside a chroot: `public/cleanup`.
    socket: PathBuf,
    ipc_timeout: Duration,
    receive_override_options: ReceiveOverrides,
    autodetect_utf8: bool,
    content_filter: Vec<u8>,
    line_length_limit: usize,
    myhostname: String,
    mail_name: Vec<u8>,
}

impl CleanupSettings {
    pub fn from_config(config: &Config) -> Result<CleanupSettings, config::Error> {
        let line_length_limit = config.line_length_limit()? as usize;
        Ok(CleanupSettings {
            socket: Path::new("public").join(config.cleanup_service_name()?),
            ipc_timeout: config.ipc_timeout()?,
            myhostname: config.myhostname()?,
            mail_name: config.mail_name()?,
            line_length_limit: line_length_limit.clamp(1, DATA_LIMIT - HEADER_ROOM),
            content_filter: config.content_filter()?,
            receive_override_options: config.receive_override_options()?,
            autodetect_utf8: config.smtputf8_autodetect_classes()?.qmqpd,
        })
    }
}

/// The room for the header name that replaces the beginning of a From_ line, see `content`.
const HEADER_ROOM: usize = 16;

/// A message on its way to cleanup.
pub struct Cleanup<'a, S = Conversation> {
    settings: &'a CleanupSettings,
    origin: &'a Origin<'a>,
    flags: u32,
    /// Empty before the greeting.
    queue_id: String,
    out: Writer<S>,
    /// Held back to the end of the request: the envelope comes before it.
    content: Vec<Vec<u8>>,
    recipients: u64,
    only_recipient: Option<Vec<u8>>,
}

/// Connects only. The greeting is read in `queue_id`, after confinement, because cleanup may be slow to send it.
pub fn connect<'a>(
    settings: &'a CleanupSettings,
    origin: &'a Origin<'a>,
) -> Result<Cleanup<'a>, Unavailable> {
    let flags = flags(settings);
    let begin = Instant::now();
    let stream = Bounded {
        fd: connect_socket(&settings.socket)?,
        limit: settings.ipc_timeout,
    };
    let conversation = Conversation {
        stream,
        greeting_since: Some(begin),
    };
    Ok(begin_message(settings, origin, conversation, flags))
}

/// Makes the records before the sender.
pub(super) fn begin_message<'a, S: Write>(
    settings: &'a CleanupSettings,
    origin: &'a Origin<'a>,
    stream: S,
    flags: u32,
) -> Cleanup<'a, S> {
    let mut preamble = Vec::with_capacity(4096);
    attr::put(&mut preamble, "flags", &flags.to_string());
    attr::put_end(&mut preamble);
    let mut out = Writer::new(stream, preamble);
    out.put(Type::Time, &[origin.arrival.to_string().as_bytes()]);
    if !settings.content_filter.is_empty() {
        out.put(Type::Filt, &[&settings.content_filter]);
    }
    Cleanup {
        settings,
        origin,
        flags,
        queue_id: String::new(),
        out,
        content: Vec::new(),
        recipients: 0,
        only_recipient: None,
    }
}

/// The connection to cleanup, which sends first.
#[derive(Debug)]
pub struct Conversation {
    stream: Bounded,
    /// The start of the wait for the greeting, until this program writes. The whole greeting has to arrive within
    /// [`GREETING_LIMIT`], in any number of pieces.
    greeting_since: Option<Instant>,
}

impl Read for Conversation {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(begin) = self.greeting_since else {
            return self.stream.read(buffer);
        };
        let left = GREETING_LIMIT.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let limit = left.min(self.stream.limit);
        alarm::bounded(limit, || nix::unistd::read(self.stream.fd.as_fd(), buffer))
    }
}

impl Write for Conversation {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.greeting_since = None;
        self.stream.write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.greeting_since = None;
        self.stream.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: Read + Write> Queue for Cleanup<'_, S> {
    fn needs(&self) -> Vec<Need<'_>> {
        // The connected stream needs reading and writing only.
        Vec::new()
    }

    fn queue_id(&mut self) -> Result<String, Unavailable> {
        let socket = socket_name(&self.settings.socket);
        self.queue_id = answers::greeting(self.out.sink(), &socket)?;
        log::debug!(1, "send attr flags = {}", self.flags);
        Ok(self.queue_id.clone())
    }

    fn content(&mut self, piece: Vec<u8>) {
        self.content.push(piece);
    }

    fn sender(&mut self, sender: &Sender) {
        self.out.put(Type::From, &[&sender.address]);
        if let Some(delimiters) = &sender.verp {
            self.out.put(Type::Verp, &[delimiters]);
        }
        put_attributes(&mut self.out, self.origin);
    }

    fn recipient(&mut self, recipient: &[u8]) {
        self.out.put(Type::Rcpt, &[recipient]);
        self.only_recipient = (self.recipients == 0).then(|| recipient.to_vec());
        self.recipients = self.recipients.saturating_add(1);
    }

    fn commit(mut self: Box<Self>) -> Committed {
        let content = std::mem::take(&mut self.content);
        self.send_content(&content);
        let socket = socket_name(&self.settings.socket);
        if let Err(error) = self.out.finish() {
            answers::log_close_error(&error, &socket);
            return Verdict::WriteError.into();
        }
        answers::status(self.out.sink(), &socket).into()
    }
}

impl<S: Write> Cleanup<'_, S> {
    fn send_content(&mut self, content: &[Vec<u8>]) {
        let header = Received {
            origin: self.origin,
            myhostname: &self.settings.myhostname,
            mail_name: &self.settings.mail_name,
            queue_id: &self.queue_id,
            only_recipient: self.only_recipient.as_deref(),
        };
        self.out.put(Type::Mesg, &[]);
        for line in header.lines() {
            self.out.put(Type::Norm, &[&line]);
        }
        let limit = self.settings.line_length_limit;
        content::records(content, limit, |kind, pieces| {
            self.out.put(kind, pieces);
        });
        self.out.put(Type::Xtra, &[]);
        self.out.put(Type::End, &[]);
    }
}

/// The acts that cleanup is asked for.
pub(super) fn flags(settings: &CleanupSettings) -> u32 {
    let mut flags = flag::FILTER | flag::BCC_OK | flag::MAP_OK | flag::MILTER;
    log_flags("before", flags);
    let overrides = settings.receive_override_options;
    if overrides.no_address_mappings {
        flags &= !(flag::BCC_OK | flag::MAP_OK);
    }
    if overrides.no_header_body_checks {
        flags &= !flag::FILTER;
    }
    if overrides.no_milters {
        flags &= !flag::MILTER;
    }
    log_flags("after", flags);
    if settings.autodetect_utf8 {
        flags |= flag::AUTOUTF8;
    }
    flags
}

fn log_flags(when: &str, flags: u32) {
    if log::verbosity() == 0 {
        return;
    }
    let names: Vec<&str> = [
        (flag::FILTER, "enable_header_body_filter"),
        (flag::BCC_OK, "enable_automatic_bcc"),
        (flag::MAP_OK, "enable_address_mapping"),
        (flag::MILTER, "enable_milters"),
    ]
    .into_iter()
    .filter_map(|(bit, name)| (flags & bit != 0).then_some(name))
    .collect();
    let text = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    };
    log::info!("{when} input_transp_cleanup: cleanup flags = {text}");
}

/// `public/cleanup socket`, the name in log lines.
fn socket_name(path: &Path) -> String {
    format!("{} socket", path.display())
}

fn connect_socket(path: &Path) -> Result<OwnedFd, Unavailable> {
    log::debug!(1, "connect to subsystem {}", path.display());
    let begin = Instant::now();
    for attempt in 1.. {
        let left = CONNECT_LIMIT.saturating_sub(begin.elapsed());
        let error = match socket::connect_stream(path, left) {
            Ok(fd) => return Ok(fd),
            Err(error) => error,
        };
        log::warning!(
            "connect #{attempt} to subsystem {}: {}",
            path.display(),
            reason(&error)
        );
        let left = CONNECT_LIMIT.saturating_sub(begin.elapsed());
        if left <= CONNECT_PAUSE || error.kind() == io::ErrorKind::PermissionDenied {
            break;
        }
        std::thread::sleep(CONNECT_PAUSE);
    }
    Err(Unavailable)
}

/// The system's text, and the missing right if permission is denied.
fn reason(error: &io::Error) -> String {
    let text = log::error_text(error);
    if error.kind() != io::ErrorKind::PermissionDenied {
        return text;
    }
    format!(
        "{text} (this process has uid {} and gid {}: it must be $mail_owner's, or in the group $setgid_group)",
        nix::unistd::geteuid(),
        nix::unistd::getegid()
    )
}
