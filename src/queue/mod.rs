//! Hands a message to the mail queue.
//!
//! The interface has the order of the wire: open, before confinement; the queue id; the content as it arrives; the
//! sender; each recipient; and commit, whose [`Verdict`] alone decides whether the client is told that its mail was
//! accepted. A message that is dropped before leaves nothing. An error on the way is kept, and becomes the verdict. The
//! client's protocol is left to `session`.
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

/// The client of a message, and the time of its arrival.
#[derive(Debug)]
pub struct Origin<'a> {
    pub peer: &'a Peer,
    /// `NAME[ADDR]`, and the port if qmqpd_client_port_logging is set.
    pub namaddr: &'a str,
    /// When the client connected.
    pub arrival: Moment,
}

/// A queue in which messages can be opened.
pub trait Open {
    /// Opens a message in the queue.
    fn open<'a>(&'a self, origin: &'a Origin<'a>) -> Result<Box<dyn Queue + 'a>, Unavailable>;
}

/// A message on its way into the queue.
pub trait Queue {
    /// The rights that the message still needs after confinement.
    fn needs(&self) -> Vec<Need<'_>>;

    /// Waits for the queue's id of the message. Called once, before the content.
    fn queue_id(&mut self) -> Result<String, Unavailable>;

    /// Adds content.
    fn content(&mut self, piece: Vec<u8>);

    /// Sets the envelope sender, after the content.
    fn sender(&mut self, sender: &Sender);

    /// Adds a recipient, after the sender.
    fn recipient(&mut self, recipient: &[u8]);

    /// Puts the whole message into the queue durably, or nothing.
    fn commit(self: Box<Self>) -> Committed;
}

/// The result of [`Queue::commit`].
pub struct Committed {
    pub verdict: Verdict,
    pub after_reply: Option<AfterReply>,
}

/// Done after the reply, because it may be slow and cannot change the result: log lines, waking the queue manager.
pub type AfterReply = Box<dyn FnOnce()>;

impl From<Verdict> for Committed {
    fn from(verdict: Verdict) -> Self {
        Committed {
            verdict,
            after_reply: None,
        }
    }
}

/// The result for a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The message is in the queue, durably.
    Queued,
    /// The content was rejected for now, with the queue's reason.
    Deferred(Vec<u8>),
    /// The content was rejected, with the queue's reason, which may still ask for another attempt.
    Rejected(Vec<u8>),
    /// The message is larger than message_size_limit with what the queue adds.
    TooLarge,
    /// The message has hopcount_limit Received: headers or more.
    TooManyHops,
    /// The message could not be written, or it is not known whether it was.
    WriteError,
    /// The message has no recipient.
    NoRecipients,
    /// Not queued, for this reason; another attempt is of no use.
    Refused(&'static str),
    /// Not queued for this reason, or it is not known.
    Failed(&'static str),
    /// A protocol error: the queue's, or an unknown status.
    Internal(u32),
}

/// No message could be opened, because the queue cannot be reached. The reason has been logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// The queue of qmqpd_queue_method, with those of its parameters that are the same for every message.
#[derive(Debug)]
pub enum Method {
    Cleanup(CleanupSettings),
    File(Box<FileSettings>),
    Qmail(QmailSettings),
}

impl Method {
    /// Evaluates qmqpd_queue_method and the parameters of the method.
    pub fn from_config(config: &Config) -> Result<Method, config::Error> {
        Ok(match config.qmqpd_queue_method()? {
            QueueMethod::Cleanup => Method::Cleanup(CleanupSettings::from_config(config)?),
            QueueMethod::File => Method::File(Box::new(FileSettings::from_config(config)?)),
            QueueMethod::Qmail(program) => {
                Method::Qmail(QmailSettings::from_config(config, program)?)
            }
        })
    }

    /// The directories that keep messages from being queued: each with the error and the command that mends it.
    ///
    /// The working directory is queue_directory, and the user is the one that serves.
    pub fn faults(&self) -> io::Result<Vec<(PathBuf, String, String)>> {
        match self {
            Method::File(settings) => file::faults(settings),
            Method::Cleanup(_) | Method::Qmail(_) => Ok(Vec::new()),
        }
    }

    /// Leaves waking the queue manager to the parent, by [`Method::wake`]. A process that has read a client's bytes
    /// then needs no right to connect.
    pub fn leave_waking(&mut self) {
        match self {
            Method::File(settings) => settings.leave_waking(),
            Method::Cleanup(_) | Method::Qmail(_) => {}
        }
    }

    /// Wakes the queue manager for a message that a child has queued, if that is left to this process. Does not wait.
    pub fn wake(&self) {
        match self {
            Method::File(settings) => file::wake_at_once(settings),
            Method::Cleanup(_) | Method::Qmail(_) => {}
        }
    }

    /// Whether opening a message starts another program, which needs rights of its own.
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

/// Writes what the queue keeps about the client: names and values, in Postfix's order.
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

/// The log line of a message that is not logged by cleanup.
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
