//! The queue method `file`: writes Postfix's queue file without cleanup(8).
//!
//! The file is what cleanup writes for the same message, except for what needs tables or other programs: no address is
//! rewritten or mapped, no milter is asked, no header is checked. Follows `tests/spec/queue-file.md`, sections 1 to 7.
//! Names, rights, headers and recipients are left to the other files of `queue::file`.

mod header;
mod id;
mod incoming;
mod recipients;
mod rights;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{self, Config};
use crate::jail::Need;
use crate::log::{self, Shown};
use crate::sys::socket;
use crate::sys::time::Moment;
use crate::wire::address;
use crate::wire::record::{self, DATA_LIMIT, Type, Writer};
use crate::wire::verp::Sender;

use super::received::{self, Received};
use super::{AfterReply, Committed, Origin, Queue, Unavailable, Verdict, content};

pub(super) use incoming::{Incoming, Named};

/// The limit for waking the queue manager, which otherwise finds the message within minutes.
const WAKE_LIMIT: Duration = Duration::from_secs(2);

/// TRIGGER_REQ_WAKEUP: makes the queue manager scan the incoming queue.
const WAKE_UP: &[u8] = b"W";

/// The sender in the From: header of a message with the null sender.
const MAILER_DAEMON: &[u8] = b"MAILER-DAEMON";

/// The reason for rejecting content with one of message_reject_characters.
const DISALLOWED: &str = "5.7.1 disallowed character";

/// cleanup's status for a protocol error.
const STATUS_BAD: u32 = 1;

/// The bits of the size record's last number.
mod flag {
    /// The sender asked for SMTPUTF8, or the message looks as if it needs it.
    pub const REQUESTED: u32 = 1;
    /// A header is not ASCII.
    pub const HEADER: u32 = 1 << 1;
    /// The sender is UTF-8, and not ASCII.
    pub const SENDER: u32 = 1 << 2;
    /// The message is to be delivered even if TLS fails. Postfix 3.10 and later know the bit; earlier versions ignore
    /// it.
    pub const TLS_OPTIONAL: u32 = 1 << 4;
}

/// What main.cf sets for queue files.
#[derive(Debug)]
pub struct FileSettings {
    /// Relative to queue_directory: `public/qmgr`.
    trigger: PathBuf,
    /// Whether the process that writes the file wakes the queue manager; otherwise its parent does.
    wakes: bool,
    incoming: incoming::PlaceSettings,
    addresses: recipients::AddressSettings,
    content: header::HeaderSettings,
    content_filter: Vec<u8>,
    delay_warning_time: Duration,
    myhostname: String,
    mail_name: Vec<u8>,
    smtputf8_enable: bool,
    autodetect_utf8: bool,
}

impl FileSettings {
    pub fn from_config(config: &Config) -> Result<FileSettings, config::Error> {
        Ok(FileSettings {
            trigger: Path::new("public").join(config.queue_service_name()?),
            wakes: true,
            incoming: incoming::PlaceSettings {
                queue_directory: config.queue_directory()?,
                enable_long_queue_ids: config.enable_long_queue_ids()?,
                hash_queue_names: words(&config.hash_queue_names()?),
                hash_queue_depth: config.hash_queue_depth()? as usize,
                queue_minfree: config.queue_minfree()?,
                message_size_limit: config.message_size_limit()?,
            },
            addresses: recipients::AddressSettings {
                myorigin: config.myorigin()?,
                append_at_myorigin: config.append_at_myorigin()?,
                empty_address_recipient: config.empty_address_recipient()?,
                enable_original_recipient: config.enable_original_recipient()?,
                duplicate_filter_limit: config.duplicate_filter_limit()? as usize,
            },
            content: header::HeaderSettings {
                message_drop_headers: words(&config.message_drop_headers()?),
                header_size_limit: config.header_size_limit()? as usize,
                hopcount_limit: config.hopcount_limit()? as usize,
                line_length_limit: (config.line_length_limit()? as usize).clamp(1, DATA_LIMIT),
                cleanup_replace_stray_cr_lf: config.cleanup_replace_stray_cr_lf()?,
                message_reject_characters: unescape(&config.message_reject_characters()?),
                message_strip_characters: unescape(&config.message_strip_characters()?),
                undisclosed_recipients_header: config.undisclosed_recipients_header()?,
                detect_8bit_encoding_header: config.detect_8bit_encoding_header()?,
                tls_required_enable: config.tls_required_enable()?,
                smtputf8_enable: config.smtputf8_enable()?,
            },
            content_filter: config.content_filter()?,
            delay_warning_time: config.delay_warning_time()?,
            myhostname: config.myhostname()?,
            mail_name: config.mail_name()?,
            smtputf8_enable: config.smtputf8_enable()?,
            autodetect_utf8: config.smtputf8_autodetect_classes()?.qmqpd,
        })
    }

    /// Leaves waking the queue manager to the parent.
    pub fn leave_waking(&mut self) {
        self.wakes = false;
    }

    /// A socket for waking the queue manager.
    fn trigger(&self) -> Option<OwnedFd> {
        self.wakes.then(|| socket::unconnected_stream().ok())?
    }
}

fn words(list: &str) -> Vec<String> {
    config::lines::items(list.as_bytes())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// Replaces C escapes by their bytes: `\\n`, `\\012`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.iter().copied().peekable();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        let mut octal = None;
        for _ in 0..3 {
            let Some(digit) = bytes.next_if(|byte| matches!(byte, b'0'..=b'7')) else {
                break;
            };
            octal = Some((octal.unwrap_or(0_u8) << 3) | (digit - b'0'));
        }
        plain.extend(octal.or_else(|| bytes.next().map(escaped)));
    }
    plain
}

fn escaped(letter: u8) -> u8 {
    match letter {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        other => other,
    }
}

/// A message with a queue file.
///
/// The envelope is written as it arrives; the content is held back to the end, because its place is after the envelope.
/// [`Queue::commit`] has the order that must not change: content, size record, mode, file and directory on disk. The
/// queue manager is woken after the reply, because a connection that is made and then left idle stops it for ten
/// seconds. Under master(8) the resident process wakes it, when the exit status of its child says that a message is
/// queued.
pub struct QueueFile<'a> {
    settings: &'a FileSettings,
    origin: &'a Origin<'a>,
    queue_id: String,
    /// The time when the file got its name, which is also the time in Message-Id.
    created: Moment,
    out: Writer<Incoming>,
    /// Not connected yet. `None` if the parent wakes the queue manager, or if no socket can be made: then the queue
    /// manager finds the message later.
    trigger: Option<OwnedFd>,
    /// Held back to the end of the request: the envelope comes before it.
    content: Vec<Vec<u8>>,
    sender: Vec<u8>,
    seen: recipients::Seen,
    /// The number of recipients that the client has named, and the recipient if it is the only one.
    named: u64,
    only_recipient: Option<Vec<u8>>,
    /// The last recipient as it is written.
    last_recipient: Vec<u8>,
    /// The number of recipients in the file.
    written: u64,
    utf8: u32,
}

/// The directories of the queue that keep a file from being made: each with the error and the remedy.
///
/// The process is in queue_directory, and has the user that serves.
pub fn faults(settings: &FileSettings) -> io::Result<Vec<(PathBuf, String, String)>> {
    let queue = &settings.incoming.queue_directory;
    let faults = incoming::faults(&settings.incoming)?.into_iter();
    let shown = faults.map(|fault| (fault.path_in(queue), fault.to_string(), fault.fix(queue)));
    Ok(shown.collect())
}

/// Makes the file and begins the message.
pub fn create<'a>(
    settings: &'a FileSettings,
    origin: &'a Origin<'a>,
) -> Result<QueueFile<'a>, Unavailable> {
    let named = incoming::create(&settings.incoming).map_err(|error| {
        log::warning!("{error}");
        Unavailable
    })?;
    Ok(begin_message(settings, origin, named))
}

/// Makes the records before the sender.
pub(super) fn begin_message<'a>(
    settings: &'a FileSettings,
    origin: &'a Origin<'a>,
    Named {
        file,
        queue_id,
        created,
    }: Named,
) -> QueueFile<'a> {
    let mut out = Writer::new(file, Vec::with_capacity(4096));
    out.put(Type::Size, &[size_record([0; 6]).as_bytes()]);
    out.put(Type::Time, &[origin.arrival.to_string().as_bytes()]);
    let create_time = format!("create_time={}", created.secs);
    out.put(Type::Attr, &[create_time.as_bytes()]);
    if !settings.content_filter.is_empty() {
        out.put(Type::Filt, &[&settings.content_filter]);
    }
    QueueFile {
        settings,
        origin,
        queue_id,
        created,
        out,
        trigger: settings.trigger(),
        content: Vec::new(),
        sender: Vec::new(),
        seen: recipients::Seen::default(),
        named: 0,
        only_recipient: None,
        last_recipient: Vec::new(),
        written: 0,
        utf8: 0,
    }
}

impl Queue for QueueFile<'_> {
    fn needs(&self) -> Vec<Need<'_>> {
        let file = self.out.sink_ref();
        let mut needs = vec![Need::File(file.file()), Need::Unlink(file.directory())];
        // Without an address there is no connection.
        let length = socket::address_length(&self.settings.trigger).unwrap_or(0);
        needs.extend(
            self.trigger
                .iter()
                .map(|fd| Need::Connect(fd.as_fd(), length)),
        );
        needs
    }

    fn queue_id(&mut self) -> Result<String, Unavailable> {
        Ok(self.queue_id.clone())
    }

    fn content(&mut self, piece: Vec<u8>) {
        self.content.push(piece);
    }

    fn sender(&mut self, sender: &Sender) {
        self.sender = self.settings.addresses.sender(&sender.address);
        if is_utf8(&self.sender) {
            self.utf8 |= flag::SENDER | self.requested();
        }
        self.out.put(Type::From, &[&self.sender]);
        if let Some(delimiters) = sender.verp.as_ref().filter(|_| !self.sender.is_empty()) {
            self.out.put(Type::Verp, &[delimiters]);
        }
        super::put_attributes(&mut self.out, self.origin);
    }

    fn recipient(&mut self, original: &[u8]) {
        if self.named == 0 {
            self.put_warning_time();
        }
        self.only_recipient = (self.named == 0).then(|| original.to_vec());
        self.named = self.named.saturating_add(1);
        let addresses = &self.settings.addresses;
        self.last_recipient = addresses.recipient(original);
        let recipient = &self.last_recipient;
        if is_utf8(recipient) {
            self.utf8 |= self.requested();
        }
        let international = self.settings.smtputf8_enable
            && self.utf8 & flag::REQUESTED != 0
            && !recipient.is_ascii();
        let kind: &[u8] = if international { b"utf-8;" } else { b"rfc822;" };
        if !self.seen.is_new(addresses, (kind, original), recipient) {
            return;
        }
        self.out
            .put(Type::Attr, &[b"dsn_orig_rcpt=", kind, recipient]);
        self.out.put(Type::Orcp, &[original]);
        self.out.put(Type::Rcpt, &[recipient]);
        self.written = self.written.saturating_add(1);
    }

    fn commit(mut self: Box<Self>) -> Committed {
        let content = std::mem::take(&mut self.content);
        let data_offset = self.put_envelope_end();
        let found = self.put_content(&content);
        let data_size = self.out.position() - data_offset;
        if let Some(record) = found.rejected {
            self.log_rejected(&record);
            return Verdict::Rejected(DISALLOWED.into()).into();
        }
        if found.hops == 0 {
            let id = &self.queue_id;
            log::warning!("{id}: message rejected: no Received: header");
            return Verdict::Internal(STATUS_BAD).into();
        }
        if found.hops >= self.settings.content.hopcount_limit {
            let id = &self.queue_id;
            log::warning!("{id}: message rejected: hopcount exceeded");
            return Verdict::TooManyHops.into();
        }
        if self.written == 0 {
            return Verdict::NoRecipients.into();
        }
        self.out.put(Type::Xtra, &[]);
        if let Some(name) = &found.named {
            self.out.put(Type::Attr, &[b"message_id=", name]);
        }
        if found.eight_bit {
            self.out.put(Type::Attr, &[b"encoding=8bit"]);
        }
        self.out.put(Type::End, &[]);
        if found.non_ascii {
            self.utf8 |= flag::HEADER | self.requested();
        }
        let mut flags = if self.settings.smtputf8_enable {
            self.utf8
        } else {
            0
        };
        if found.tls_optional {
            flags |= flag::TLS_OPTIONAL;
        }
        let size = size_record([
            data_size,
            data_offset,
            self.written,
            0,
            data_size,
            flags.into(),
        ]);
        self.commit_file(&size, data_size, found.message_ids)
    }
}

impl QueueFile<'_> {
    /// The flag that smtputf8_autodetect_classes makes of an address or a header that needs SMTPUTF8.
    fn requested(&self) -> u32 {
        if self.settings.autodetect_utf8 {
            flag::REQUESTED
        } else {
            0
        }
    }

    fn log_rejected(&self, record: &[u8]) {
        let mut sender = Vec::new();
        if !self.sender.is_empty() {
            sender = address::quote(&self.sender);
        }
        log::info!(
            "{}: reject: content {} from {}; from=<{}> to=<{}> proto=QMQP: {DISALLOWED}",
            self.queue_id,
            Shown(record),
            self.origin.namaddr,
            Shown(&sender),
            Shown(&address::quote(&self.last_recipient))
        );
    }

    /// The time when the sender is told that the message is late. A bounce has none.
    fn put_warning_time(&mut self) {
        let delay = self.settings.delay_warning_time;
        if delay.is_zero() || self.sender.is_empty() {
            return;
        }
        let delay = i64::try_from(delay.as_secs()).unwrap_or(i64::MAX);
        let at = self.origin.arrival.secs.saturating_add(delay);
        self.out.put(Type::Warn, &[format!("{at:15}").as_bytes()]);
    }

    /// Begins the content, and returns its offset.
    fn put_envelope_end(&mut self) -> u64 {
        self.out.put(Type::Mesg, &[]);
        self.out.position()
    }

    fn put_content(&mut self, content: &[Vec<u8>]) -> header::Found {
        let settings = self.settings;
        let received = Received {
            origin: self.origin,
            myhostname: &settings.myhostname,
            mail_name: &settings.mail_name,
            queue_id: &self.queue_id,
            only_recipient: self.only_recipient.as_deref(),
        };
        let missing = self.missing();
        let mut edited = header::Content::new(&settings.content, missing, |kind, pieces| {
            self.out.put(kind, pieces);
        });
        for line in received.lines() {
            edited.record(Type::Norm, &line);
        }
        let limit = settings.content.line_length_limit;
        content::records(content, limit, |kind, pieces| match pieces {
            [line] => edited.record(kind, line),
            pieces => edited.record(kind, &pieces.concat()),
        });
        edited.end()
    }

    fn missing(&self) -> header::Missing {
        let host = &self.settings.myhostname;
        let id = &self.queue_id;
        let message_id = if self.settings.incoming.enable_long_queue_ids {
            format!("<{id}@{host}>")
        } else {
            let at = self.created.utc();
            format!(
                "<{}{:02}{:02}{:02}{:02}{:02}.{id}@{host}>",
                at.year,
                at.month + 1,
                at.day,
                at.hour,
                at.minute,
                at.second
            )
        };
        header::Missing {
            message_id,
            date: received::date(&self.origin.arrival.local()),
            from: if self.sender.is_empty() {
                MAILER_DAEMON.to_vec()
            } else {
                address::quote(&self.sender)
            },
        }
    }

    /// The last steps. Afterwards the file is mail, or it is removed.
    fn commit_file(
        mut self,
        size: &str,
        data_size: u64,
        message_ids: header::MessageIds,
    ) -> Committed {
        let id = self.queue_id;
        let written = self.out.finish();
        let file = self.out.into_sink();
        let mut first = Vec::with_capacity(size.len() + 2);
        record::put(&mut first, Type::Size, &[size.as_bytes()]);
        let committed = match written {
            Ok(()) => file.commit(&first),
            Err(error) => Err(file.write_error(error)),
        };
        match committed {
            Ok(()) => {}
            Err(failed) if failed.is_over_limit() => {
                log::warning!("{id}: queue file size limit exceeded");
                return Verdict::TooLarge.into();
            }
            Err(failed) => {
                log::warning!("{id}: {failed}");
                return Verdict::WriteError.into();
            }
        }
        let line = super::queued_line(&id, &self.sender, data_size, self.written);
        let (trigger, path) = (self.trigger, self.settings.trigger.clone());
        let after_reply: AfterReply = Box::new(move || {
            for text in message_ids.lines() {
                log::info!("{id}: {text}");
            }
            log::info!("{line}");
            wake(trigger, &path);
        });
        Committed {
            verdict: Verdict::Queued,
            after_reply: Some(after_reply),
        }
    }
}

/// Wakes the queue manager, if it is there. Either side may close the connection at any time.
fn wake(trigger: Option<OwnedFd>, path: &Path) {
    let Some(trigger) = trigger else {
        return;
    };
    let told = socket::connect(&trigger, path, WAKE_LIMIT)
        .and_then(|()| Ok(nix::unistd::write(&trigger, WAKE_UP)?));
    log_untold(told, path);
}

/// Wakes the queue manager without waiting, for a process that serves other clients meanwhile. A queue manager that
/// does not accept at once is not woken, and finds the message later.
pub fn wake_at_once(settings: &FileSettings) {
    log_untold(
        socket::notify(&settings.trigger, WAKE_UP),
        &settings.trigger,
    );
}

fn log_untold(told: io::Result<usize>, path: &Path) {
    if let Err(error) = told {
        let (path, why) = (path.display(), log::error_text(&error));
        log::debug!(1, "connect to subsystem {path}: {why}");
    }
}

/// The six numbers of the first record: size and offset of the content, recipients, flags of the queue manager (none),
/// length of the content again, and the bits of [`flag`].
fn size_record(numbers: [u64; 6]) -> String {
    numbers.map(|number| format!("{number:15}")).join(" ")
}

fn is_utf8(address: &[u8]) -> bool {
    !address.is_ascii() && std::str::from_utf8(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_the_bytes_of_c() {
        for (text, bytes) in [
            (r"", &b""[..]),
            (r"ab", b"ab"),
            (r"\0\7\10\377\400", b"\0\x07\x08\xff\0"),
            (r"\18\0011\9", b"\x018\x0119"),
            (r"\a\b\f\n\r\t\v", b"\x07\x08\x0c\n\r\t\x0b"),
            (r"\\\x\q", br"\xq"),
            (r"a\", b"a"),
        ] {
            assert_eq!(unescape(text.as_bytes()), bytes, "{text}");
        }
    }
}
