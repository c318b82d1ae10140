//! Handing a message over to the mail queue.
//!
//! One small interface, in the order of the wire: open, which comes before confinement; the queue id; then content as it arrives, the sender, the
//! recipients one by one; and commit, whose [`Verdict`] is the only thing on which a client is told that its mail was
//! accepted. Dropped before that, a message leaves nothing behind. What goes wrong on the way is kept and becomes the
//! verdict. Knows nothing of the client's protocol.
#![forbid(unsafe_code)]

mod answers;
mod cleanup;
mod content;
mod file;
#[cfg(any(test, fuzzing))]
pub mod in_memory;
mod qmail;
mod received;

use std::io::{self, Write};
use std::path::PathBuf;

use crate::config::{self, Config, QueueMethod};
use crate::jail::Need;
use crate::log::Shown;
use crate::peer::Peer;
use crate::sys::time::Moment;
use crate::wire::address;
use crate::wire::record::{Type, Writer};
use crate::wire::verp::Sender;

use cleanup::CleanupSettings;
use file::FileSettings;
use qmail::QmailSettings;

/// Where a message comes from and when it came.
#[derive(Debug)]
pub struct Origin<'a> {
    pub peer: &'a Peer,
    /// `NAME[ADDR]`, with the port where qmqpd_client_port_logging says so.
    pub namaddr: &'a str,
    /// When the client connected.
    pub arrival: Moment,
}

/// Where messages can be opened.
pub trait Open {
    /// Opens a message in the queue.
    fn open<'a>(&'a self, origin: &'a Origin<'a>) -> Result<Box<dyn Queue + 'a>, Unavailable>;
}

/// A message on its way into the queue.
pub trait Queue {
    /// What this still has to do after confinement.
    fn needs(&self) -> Vec<Need<'_>>;

    /// Waits for the name under which the queue knows the message; once, before there is any content.
    fn queue_id(&mut self) -> Result<String, Unavailable>;

    /// More of the message's content.
    fn content(&mut self, piece: Vec<u8>);

    /// The envelope sender, after the content.
    fn sender(&mut self, sender: &Sender);

    /// One recipient, after the sender.
    fn recipient(&mut self, recipient: &[u8]);

    /// Puts the message into the queue for good, or not at all.
    fn commit(self: Box<Self>) -> Committed;
}

/// What has come of [`Queue::commit`].
pub struct Committed {
    pub verdict: Verdict,
    pub after_reply: Option<AfterReply>,
}

/// What is done only once the client has its answer, because it may be slow and can no longer change anything: log
/// lines, waking others.
pub type AfterReply = Box<dyn FnOnce()>;

impl From<Verdict> for Committed {
    fn from(verdict: Verdict) -> Self {
        Committed {
            verdict,
            after_reply: None,
        }
    }
}

/// What has become of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the queue, durably.
    Queued,
    /// Its content was rejected for now, with the queue's reason.
    Deferred(Vec<u8>),
    /// Its content was rejected, with the queue's reason, which may still ask for another try.
    Rejected(Vec<u8>),
    /// It is larger than message_size_limit together with what the queue adds.
    TooLarge,
    /// It has as many Received: headers as hopcount_limit, or more.
    TooManyHops,
    /// It could not be written, or nobody knows whether it was.
    WriteError,
    /// It has no recipient.
    NoRecipients,
    /// It is not queued, for this reason, and never will be.
    Refused(&'static str),
    /// It is not queued, for this reason, or nobody knows.
    Failed(&'static str),
    /// The queue did not understand us, or we do not understand its status.
    Internal(u32),
}

/// No message could be opened, because the queue is out of reach. The reason has been logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// The queue that qmqpd_queue_method names, with those of its parameters that are wrong or right for every message.
#[derive(Debug)]
pub enum Method {
    Cleanup(CleanupSettings),
    File(Box<FileSettings>),
    Qmail(QmailSettings),
}

impl Method {
    /// Evaluates qmqpd_queue_method and what the method needs.
    pub fn from_config(config: &Config) -> Result<Method, config::Error> {
        Ok(match config.qmqpd_queue_method()? {
            QueueMethod::Cleanup => Method::Cleanup(CleanupSettings::from_config(config)?),
            QueueMethod::File => Method::File(Box::new(FileSettings::from_config(config)?)),
            QueueMethod::Qmail(program) => {
                Method::Qmail(QmailSettings::from_config(config, program)?)
            }
        })
    }

    /// Directories that keep messages from being queued: each one, what is wrong with it, and the command that mends it.
    ///
    /// The working directory is queue_directory, and the user the one who serves.
    pub fn faults(&self) -> io::Result<Vec<(PathBuf, String, String)>> {
        match self {
            Method::File(settings) => file::faults(settings),
            Method::Cleanup(_) | Method::Qmail(_) => Ok(Vec::new()),
        }
    }

    /// Leaves it to the parent of the process that queues a message to wake the queue manager, by [`Method::wake`]. A process
    /// that has read a client's bytes then need not be able to connect to anything.
    pub fn leave_waking(&mut self) {
        match self {
            Method::File(settings) => settings.leave_waking(),
            Method::Cleanup(_) | Method::Qmail(_) => {}
        }
    }

    /// Tells the queue manager of a message that a child has queued, if that is left to this process. Does not wait.
    pub fn wake(&self) {
        match self {
            Method::File(settings) => file::wake_at_once(settings),
            Method::Cleanup(_) | Method::Qmail(_) => {}
        }
    }

    /// Whether a message is opened by starting another program, whose rights must not be less than its own.
    pub fn starts_a_program(&self) -> bool {
        match self {
            Method::Cleanup(_) | Method::File(_) => false,
            Method::Qmail(_) => true,
        }
    }
}

/// The working directory must be queue_directory.
impl Open for Method {
    fn open<'a>(&'a self, origin: &'a Origin<'a>) -> Result<Box<dyn Queue + 'a>, Unavailable> {
        match self {
            Method::Cleanup(settings) => Ok(Box::new(cleanup::connect(settings, origin)?)),
            Method::File(settings) => Ok(Box::new(file::create(settings, origin)?)),
            Method::Qmail(settings) => Ok(Box::new(qmail::start(settings, origin)?)),
        }
    }
}

/// Puts what the queue keeps about the client: names and values, in Postfix's order.
fn put_attributes<W: Write>(out: &mut Writer<W>, origin: &Origin<'_>) {
    let peer = origin.peer;
    let family = peer.family.to_string();
    for (name, value) in [
        ("log_client_name", peer.name.as_str()),
        ("log_client_address", peer.rfc_addr.as_str()),
        ("log_client_port", peer.port.as_str()),
        ("log_message_origin", origin.namaddr),
        ("log_protocol_name", "QMQP"),
        ("client_name", peer.name.as_str()),
        ("client_address", peer.addr.as_str()),
        ("client_port", peer.port.as_str()),
        ("client_address_type", family.as_str()),
        ("protocol_name", "QMQP"),
    ] {
        out.put(Type::Attr, &[name.as_bytes(), b"=", value.as_bytes()]);
    }
}

/// The one line about a message that no cleanup and perhaps no queue manager logs anything about.
fn queued_line(queue_id: &str, sender: &[u8], size: u64, recipients: u64) -> String {
    let sender = if sender.is_empty() {
        Vec::new()
    } else {
        address::quote(sender)
    };
    format!(
        "{queue_id}: from=<{}>, size={size}, nrcpt={recipients} (queued)",
        Shown(&sender)
    )
}
