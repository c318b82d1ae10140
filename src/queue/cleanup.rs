//! The queue of Postfix, through its cleanup(8) daemon.
//!
//! A stream socket below queue_directory: cleanup says the queue id, we say flags and records, the last of type E, and
//! cleanup answers with a status. Whatever ends the conversation before E leaves nothing in the queue; an E without an answer
//! may have left something, and counts as not queued. The content is held back to the end, because the envelope has to be in front
//! of it, and our own header depends on the envelope. Authority: the cleanup page of the specification.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{self, Config, ReceiveOverrides};
use crate::jail::Need;
use crate::log::{self, Shown};
use crate::sys::alarm::Bounded;
use crate::sys::socket;
use crate::wire::attr;
use crate::wire::record::{DATA_LIMIT, Type, Writer};
use crate::wire::verp::Sender;

use super::received::Received;
use super::{Origin, Queue, Unavailable, Verdict, content};

/// How long connecting is tried. Unlike Postfix, which tries for 100 s: QMQP clients wait 60 s for their answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// Between two tries to connect.
const CONNECT_PAUSE: Duration = Duration::from_secs(3);

/// How long connecting and the greeting may take together. Unlike Postfix, which waits ipc_timeout for the greeting.
const GREETING_LIMIT: Duration = Duration::from_secs(45);

/// Flags of the conversation, by cleanup's names for them without their prefix.
mod flag {
    pub const FILTER: u32 = 1 << 1;
    pub const BCC_OK: u32 = 1 << 4;
    pub const MAP_OK: u32 = 1 << 5;
    pub const MILTER: u32 = 1 << 6;
    pub const AUTOUTF8: u32 = 1 << 9;
}

/// Bits of the final status.
mod status {
    pub const BAD: u32 = 1;
    pub const WRITE: u32 = 1 << 1;
    pub const SIZE: u32 = 1 << 2;
    pub const CONT: u32 = 1 << 3;
    pub const HOPS: u32 = 1 << 4;
    pub const RCPT: u32 = 1 << 6;
    pub const DEFER: u32 = 1 << 8;
}

/// What main.cf says about the conversation.
#[derive(Debug)]
pub struct Settings {
    /// Relative to queue_directory, also where that is the root: `public/cleanup`.
    socket: PathBuf,
    ipc_timeout: Duration,
    receive_override_options: ReceiveOverrides,
    autodetect_utf8: bool,
    content_filter: Vec<u8>,
    line_length_limit: usize,
    myhostname: String,
    mail_name: Vec<u8>,
}

impl Settings {
    pub fn from_config(config: &Config) -> Result<Settings, config::Error> {
        let line_length_limit = usize::try_from(config.line_length_limit()?).unwrap_or(0);
        Ok(Settings {
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

/// A From_ line is given a header name of this many bytes, see `content`.
const HEADER_ROOM: usize = 16;

/// A message that cleanup has given an id to.
pub struct Cleanup<'a> {
    settings: &'a Settings,
    origin: &'a Origin<'a>,
    queue_id: String,
    out: Writer<Bounded>,
    content: Vec<u8>,
    out_of_memory: bool,
    recipients: u64,
    first_recipient: Vec<u8>,
}

/// Connects, reads the queue id and prepares the records that come before the sender.
pub fn open<'a>(
    settings: &'a Settings,
    origin: &'a Origin<'a>,
) -> Result<Cleanup<'a>, Unavailable> {
    let flags = flags(settings);
    let begin = Instant::now();
    let fd = connect(&settings.socket)?;
    let mut stream = Bounded {
        fd,
        limit: GREETING_LIMIT
            .saturating_sub(begin.elapsed())
            .min(settings.ipc_timeout),
    };
    let queue_id = greeting(&mut stream, &settings.socket)?;
    stream.limit = settings.ipc_timeout;

    log::debug(1, format_args!("send attr flags = {flags}"));
    let mut preamble = Vec::with_capacity(4096);
    attr::put(&mut preamble, "flags", &flags.to_string());
    attr::put_end(&mut preamble);
    let mut out = Writer::new(stream, preamble);
    let (secs, usecs) = origin.arrival;
    out.put(Type::Time, &[format!("{secs} {usecs}").as_bytes()]);
    if !settings.content_filter.is_empty() {
        out.put(Type::Filt, &[&settings.content_filter]);
    }
    Ok(Cleanup {
        settings,
        origin,
        queue_id,
        out,
        content: Vec::new(),
        out_of_memory: false,
        recipients: 0,
        first_recipient: Vec::new(),
    })
}

impl Queue for Cleanup<'_> {
    fn queue_id(&self) -> &str {
        &self.queue_id
    }

    fn needs(&self) -> Vec<Need<'_>> {
        // The stream is connected: reading and writing is all.
        Vec::new()
    }

    fn content(&mut self, piece: &[u8]) {
        if self.out_of_memory {
            return;
        }
        if self.content.try_reserve(piece.len()).is_err() {
            self.out_of_memory = true;
            self.content = Vec::new();
            return;
        }
        self.content.extend_from_slice(piece);
    }

    fn sender(&mut self, sender: &Sender) {
        self.out.put(Type::From, &[&sender.address]);
        if let Some(delimiters) = &sender.verp {
            self.out.put(Type::Verp, &[delimiters]);
        }
        let peer = self.origin.peer;
        for (name, value) in [
            ("log_client_name", peer.name.as_str()),
            ("log_client_address", &peer.rfc_addr),
            ("log_client_port", &peer.port),
            ("log_message_origin", self.origin.namaddr),
            ("log_protocol_name", "QMQP"),
            ("client_name", &peer.name),
            ("client_address", &peer.addr),
            ("client_port", &peer.port),
            ("client_address_type", &peer.family.to_string()),
            ("protocol_name", "QMQP"),
        ] {
            self.out
                .put(Type::Attr, &[name.as_bytes(), b"=", value.as_bytes()]);
        }
    }

    fn recipient(&mut self, recipient: &[u8]) {
        self.out.put(Type::Rcpt, &[recipient]);
        if self.recipients == 0 {
            recipient.clone_into(&mut self.first_recipient);
        }
        self.recipients = self.recipients.saturating_add(1);
    }

    fn commit(mut self: Box<Self>) -> Verdict {
        if self.out_of_memory {
            return Verdict::OutOfMemory;
        }
        self.send_content();
        let socket = socket_name(&self.settings.socket);
        if let Err(error) = self.out.finish() {
            log_close_error(&error, &socket);
            return Verdict::WriteError;
        }
        read_status(attr::read(self.out.sink()), &socket)
    }
}

impl Cleanup<'_> {
    fn send_content(&mut self) {
        let header = Received {
            origin: self.origin,
            myhostname: &self.settings.myhostname,
            mail_name: &self.settings.mail_name,
            queue_id: &self.queue_id,
            only_recipient: (self.recipients == 1).then_some(self.first_recipient.as_slice()),
        };
        self.out.put(Type::Mesg, &[]);
        for line in header.lines() {
            self.out.put(Type::Norm, &[&line]);
        }
        content::put(
            &mut self.out,
            &self.content,
            self.settings.line_length_limit,
        );
        self.out.put(Type::Xtra, &[]);
        self.out.put(Type::End, &[]);
    }
}

/// What cleanup is asked to do with the message.
fn flags(settings: &Settings) -> u32 {
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
    log::info(format_args!(
        "{when} input_transp_cleanup: cleanup flags = {text}"
    ));
}

/// `public/cleanup socket`, as log lines call it.
fn socket_name(path: &Path) -> String {
    format!("{} socket", path.display())
}

fn connect(path: &Path) -> Result<std::os::fd::OwnedFd, Unavailable> {
    log::debug(1, format_args!("connect to subsystem {}", path.display()));
    let begin = Instant::now();
    for attempt in 1.. {
        let left = CONNECT_LIMIT.saturating_sub(begin.elapsed());
        let error = match socket::connect_stream(path, left) {
            Ok(fd) => return Ok(fd),
            Err(error) => error,
        };
        log::warning(format_args!(
            "connect #{attempt} to subsystem {}: {}",
            path.display(),
            reason(&error)
        ));
        let left = CONNECT_LIMIT.saturating_sub(begin.elapsed());
        if left <= CONNECT_PAUSE || error.kind() == io::ErrorKind::PermissionDenied {
            break;
        }
        std::thread::sleep(CONNECT_PAUSE);
    }
    Err(Unavailable)
}

/// The system's words, and what is missing where rights are.
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

/// Reads the queue id. Cleanup before 3.6 does not say which protocol it speaks.
fn greeting(stream: &mut Bounded, path: &Path) -> Result<String, Unavailable> {
    let socket = socket_name(path);
    let list = match attr::read(stream) {
        Ok(list) => list,
        Err(error) => {
            log_unread(&error, &socket);
            return Err(Unavailable);
        }
    };
    let mut pairs = list.iter().peekable();
    if let Some((_, protocol)) = pairs.next_if(|(name, _)| name == b"protocol") {
        log_attribute(&socket, "protocol", protocol);
        if protocol != b"cleanup_protocol" {
            log::warning(format_args!(
                "unexpected protocol {} from {socket} (expected: cleanup_protocol)",
                Shown(protocol)
            ));
            return Err(Unavailable);
        }
    }
    let queue_id = wanted(&mut pairs, "queue_id", &socket).filter(|id| is_queue_id(id));
    log_end(&mut pairs, &socket);
    match queue_id {
        Some(queue_id) => Ok(String::from_utf8_lossy(queue_id).into_owned()),
        None => {
            log::warning(format_args!("no queue id from {socket}"));
            Err(Unavailable)
        }
    }
}

/// 1 to 255 letters, digits and `_`: what stands in log lines and in our header must be no more than that.
fn is_queue_id(id: &[u8]) -> bool {
    (1..=255).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

type Pairs<'a> = std::iter::Peekable<std::slice::Iter<'a, (Vec<u8>, Vec<u8>)>>;

/// The value of the next attribute, which must have this name.
fn wanted<'a>(pairs: &mut Pairs<'a>, name: &str, socket: &str) -> Option<&'a [u8]> {
    let Some((found, value)) = pairs.next() else {
        log::warning(format_args!(
            "missing attribute {name} in input from {socket}"
        ));
        return None;
    };
    if found != name.as_bytes() {
        log::warning(format_args!(
            "unexpected attribute {} from {socket} (expecting: {name})",
            Shown(found)
        ));
        return None;
    }
    log_attribute(socket, name, value);
    Some(value)
}

/// Says why there is no list. A cleanup that closes the connection without a word has logged its own reason.
fn log_unread(error: &attr::Error, socket: &str) {
    match error {
        attr::Error::Closed => {}
        attr::Error::Truncated(part) => {
            let part = match part {
                attr::Part::Name => "name",
                attr::Part::Value => "value",
            };
            log::warning(format_args!(
                "unexpected end-of-input from {socket} while reading input attribute {part}"
            ));
        }
        attr::Error::TooLong => log::warning(format_args!(
            "attribute list longer than {} bytes from {socket}",
            attr::LIST_LIMIT
        )),
        attr::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            log::warning(format_args!("timeout on {socket}"));
        }
        attr::Error::Io(error) => {
            log::warning(format_args!(
                "read from {socket}: {}",
                log::error_text(error)
            ));
        }
    }
}

/// The stream failed, in the words in which Postfix's own front ends say so.
fn log_close_error(error: &io::Error, socket: &str) {
    log::debug(1, format_args!("{socket}: {}", log::error_text(error)));
    log::warning(format_args!("mail_stream_cleanup: close error"));
}

fn log_attribute(socket: &str, name: &str, value: &[u8]) {
    log::debug(1, format_args!("{socket}: wanted attribute: {name}"));
    log::debug(1, format_args!("input attribute name: {name}"));
    let shown = if value.is_empty() { b"(end)" } else { value };
    log::debug(1, format_args!("input attribute value: {}", Shown(shown)));
}

fn log_end(pairs: &mut Pairs<'_>, socket: &str) {
    log::debug(
        1,
        format_args!("{socket}: wanted attribute: (list terminator)"),
    );
    match pairs.next() {
        Some((name, _)) => log::warning(format_args!(
            "unexpected attribute {} from {socket} (expecting: (list terminator))",
            Shown(name)
        )),
        None => log::debug(1, format_args!("input attribute name: (end)")),
    }
}

/// Reads cleanup's last word. Without a complete one nobody knows, and the client has to try again.
fn read_status(answer: Result<attr::List, attr::Error>, socket: &str) -> Verdict {
    let list = match answer {
        Ok(list) => list,
        Err(attr::Error::Io(error)) => {
            log_close_error(&error, socket);
            return Verdict::WriteError;
        }
        Err(error) => {
            log_unread(&error, socket);
            return Verdict::WriteError;
        }
    };
    let mut pairs = list.iter().peekable();
    let Some(number) = wanted(&mut pairs, "status", socket) else {
        return Verdict::WriteError;
    };
    let Some(status) = std::str::from_utf8(number)
        .ok()
        .and_then(|text| text.parse().ok())
    else {
        log::warning(format_args!(
            "malformed numerical data from {socket} while reading input attribute value: {}",
            Shown(number)
        ));
        return Verdict::WriteError;
    };
    let Some(reason) = wanted(&mut pairs, "reason", socket) else {
        return Verdict::WriteError;
    };
    log_end(&mut pairs, socket);
    verdict(status, reason)
}

/// What each bit means, in the order in which they count where there are several.
fn verdict(status: u32, reason: &[u8]) -> Verdict {
    let has = |bit| status & bit != 0;
    match status {
        0 => Verdict::Queued,
        _ if has(status::DEFER) => Verdict::Deferred(reason.to_vec()),
        _ if has(status::BAD) => Verdict::Internal(status),
        _ if has(status::SIZE) => Verdict::TooLarge,
        _ if has(status::HOPS) => Verdict::TooManyHops,
        _ if has(status::CONT) => Verdict::Rejected(reason.to_vec()),
        _ if has(status::WRITE) => Verdict::WriteError,
        _ if has(status::RCPT) => Verdict::NoRecipients,
        _ => Verdict::Internal(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_verdict_and_the_worst_bit_counts() {
        let rejected = || Verdict::Rejected(b"5.7.1 no".to_vec());
        let deferred = || Verdict::Deferred(b"5.7.1 no".to_vec());
        for (status, expected) in [
            (0, Verdict::Queued),
            (1, Verdict::Internal(1)),
            (2, Verdict::WriteError),
            (3, Verdict::Internal(3)),
            (4, Verdict::TooLarge),
            (6, Verdict::TooLarge),
            (8, rejected()),
            (16, Verdict::TooManyHops),
            (24, Verdict::TooManyHops),
            (32, Verdict::Internal(32)),
            (64, Verdict::NoRecipients),
            (66, Verdict::WriteError),
            (72, rejected()),
            (128, Verdict::Internal(128)),
            (256, deferred()),
            (264, deferred()),
            (512, Verdict::Internal(512)),
            (65536, Verdict::Internal(65536)),
            (u32::MAX, deferred()),
        ] {
            assert_eq!(verdict(status, b"5.7.1 no"), expected, "{status}");
        }
    }

    #[test]
    fn only_a_complete_answer_says_queued() {
        let read = |bytes: &[u8]| read_status(attr::read(&mut &*bytes), "test socket");
        assert_eq!(read(b"status\x000\0reason\0\0\0"), Verdict::Queued);
        assert_eq!(
            read(b"status\x000\0reason\0\0extra\0x\0\0"),
            Verdict::Queued
        );
        for bytes in [
            &b""[..],
            b"status\x000\0reason\0\0",
            b"status\x000\0\0",
            b"reason\0\0status\x000\0\0",
            b"status\x000x\0reason\0\0\0",
            b"status\0-1\0reason\0\0\0",
            b"status\x004294967296\0reason\0\0\0",
            b"\0",
        ] {
            assert_eq!(read(bytes), Verdict::WriteError, "{bytes:?}");
        }
    }
}
