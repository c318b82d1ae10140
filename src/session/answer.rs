//! What a client hears, and the log reads, for each way in which a transaction can end.
//!
//! All replies of the program stand here. `K` is said for [`Verdict::Queued`] alone; `D` where the same request can
//! never succeed; whatever is unsure is `Z`. There is no catch-all arm: a new fault does not compile until somebody
//! decides what the client hears. Authority: `tests/spec/qmqp.md`, section 8, whose texts these are.

use std::fmt::{self, Display};
use std::net::IpAddr;

use crate::jail;
use crate::log::{self, Shown};
use crate::queue::{Unavailable, Verdict};
use crate::wire::netstring::Error;
use crate::wire::qmqp::{self, Phase};

use super::reply::Reply;

/// How a session ended, for the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client's message is in the queue, and the client was told so if it could be.
    Queued,
    /// The client was served, whatever it was told.
    Served,
    /// Something here is wrong that needs an administrator.
    Failed,
}

/// Why a transaction ends without a verdict of the queue.
pub enum Fault {
    /// The client is not in qmqpd_authorized_clients.
    Unauthorized,
    /// Nobody can tell whether it is.
    List,
    /// That depends on its name, which could not be looked up.
    Name,
    /// The client's bytes, or their absence.
    Request(qmqp::Fault),
    /// The sender asks for delimiters that verp_delimiter_filter does not have.
    Verp {
        delimiters: [u8; 2],
        allowed: Vec<u8>,
    },
    /// No message could be opened in the queue.
    Queue,
    /// The process could not be confined.
    Jail(jail::Error),
}

impl From<Unavailable> for Fault {
    fn from(_: Unavailable) -> Self {
        Fault::Queue
    }
}

impl From<qmqp::Fault> for Fault {
    fn from(fault: qmqp::Fault) -> Self {
        Fault::Request(fault)
    }
}

/// One line for the log, complete.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Info(String),
    Warning(String),
    Fatal(String),
}

/// A reply, and what is logged around it.
#[derive(Debug)]
pub struct Answer {
    pub reply: Option<Reply>,
    /// Logged before the reply is delayed and sent.
    pub before: Vec<Line>,
    /// Logged after it: what concerns the client alone must not hold its reply up.
    pub after: Vec<Line>,
    /// What the server was doing, should the reply be lost.
    pub phase: Phase,
    pub outcome: Outcome,
}

/// The text for everything that only an administrator can mend.
pub const CONFIGURATION_ERROR: &str = "Error: server configuration error";

impl Answer {
    fn new(reply: Reply) -> Self {
        Answer {
            reply: Some(reply),
            before: Vec::new(),
            after: Vec::new(),
            phase: Phase::Reply,
            outcome: Outcome::Served,
        }
    }

    /// A failure of ours, or one that a user will ask about: a warning, with the text of the reply.
    ///
    /// Unlike Postfix, which leaves some replies out: each that is not good news has one line with the client
    /// (`tests/spec/differences.md`, 50).
    pub fn with_warning(reply: Reply, who: &str) -> Self {
        let line = format!("{who}: {}", Shown(reply.text()));
        Answer {
            before: vec![Line::Warning(line)],
            ..Answer::new(reply)
        }
    }

    fn fatal(text: String, who: &str) -> Self {
        let mut answer = Answer::with_warning(Reply::try_later(CONFIGURATION_ERROR), who);
        answer.before.insert(0, Line::Fatal(text));
        answer.outcome = Outcome::Failed;
        answer
    }
}

/// Why a connection gets no process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// The client with this address has as many connections as it may have.
    Share(IpAddr),
    /// The system has no process to give.
    NoProcess,
    /// How many connections the client with this address has was not found out in time.
    Uncounted(IpAddr),
}

impl Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Busy::Share(address) => write!(f, "Error: too many connections from {address}"),
            Busy::NoProcess => {
                f.write_str("Error: no process for this connection, try again later")
            }
            Busy::Uncounted(_) => {
                f.write_str("Error: the connection could not be counted, try again later")
            }
        }
    }
}

/// Writes `lines` to the log.
pub fn log_all(lines: &[Line]) {
    for line in lines {
        match line {
            Line::Info(text) => log::info!("{text}"),
            Line::Warning(text) => log::warning!("{text}"),
            Line::Fatal(text) => log::fatal!("{text}"),
        }
    }
}

/// The answer to a complete request. `who` is `QID: NAME[ADDR]`.
pub fn to_verdict(verdict: &Verdict, id: &str, who: &str) -> Answer {
    let reply = match verdict {
        Verdict::Queued => {
            return Answer {
                outcome: Outcome::Queued,
                ..Answer::new(Reply::accepted(&format!("Ok: queued as {id}")))
            };
        }
        Verdict::Deferred(reason) => Reply::try_later_with("Error: ", reason),
        // The queue's reason says by its first digit whether it is for good.
        Verdict::Rejected(reason) if reason.first() == Some(&b'4') => {
            Reply::try_later_with("Error: ", reason)
        }
        Verdict::Rejected(reason) => Reply::refused_with("Error: ", reason),
        Verdict::TooLarge => Reply::refused("Error: message too large"),
        Verdict::TooManyHops => Reply::refused("Error: too many hops"),
        Verdict::WriteError => Reply::try_later("Error: queue file write error"),
        Verdict::NoRecipients => Reply::refused("Error: no recipients specified"),
        Verdict::Refused(reason) => Reply::refused(reason),
        Verdict::Failed(reason) => Reply::try_later(reason),
        Verdict::Internal(status) => Reply::try_later(&format!("Error: internal error {status}")),
    };
    Answer::with_warning(reply, who)
}

/// The answer to a request that was not carried out. `who` is `QID: NAME[ADDR]`, or `NOQUEUE: ...` before there is an id.
pub fn to_fault(fault: &Fault, namaddr: &str, who: &str) -> Answer {
    match fault {
        Fault::Unauthorized => {
            let text = format!("Error: {namaddr} is not authorized to use this service");
            // Unlike Postfix, which logs nothing: whoever wonders why mail does not come, or wants to block a prober,
            // needs this line (`tests/spec/differences.md`, 8).
            let line = format!("NOQUEUE: reject: CONNECT from {namaddr}: {text}");
            Answer {
                before: vec![Line::Info(line)],
                phase: Phase::Connect,
                ..Answer::new(Reply::refused(&text))
            }
        }
        Fault::List => Answer {
            phase: Phase::Connect,
            ..Answer::with_warning(Reply::try_later(CONFIGURATION_ERROR), who)
        },
        Fault::Name => {
            let text = format!("Error: {namaddr}: name lookup failed, try again later");
            Answer {
                phase: Phase::Connect,
                ..Answer::with_warning(Reply::try_later(&text), who)
            }
        }
        Fault::Request(fault) => to_request_fault(fault, who),
        Fault::Verp {
            delimiters,
            allowed,
        } => {
            let mut text = b"Error: Invalid VERP delimiters: \"".to_vec();
            text.extend_from_slice(delimiters);
            text.extend_from_slice(b"\". Need two characters from \"");
            text.extend_from_slice(allowed);
            text.push(b'"');
            Answer::with_warning(Reply::refused_with("", &text), who)
        }
        Fault::Queue => {
            Answer::with_warning(Reply::try_later("Error: queue service unavailable"), who)
        }
        Fault::Jail(error) => Answer::fatal(error.to_string(), who),
    }
}

fn to_request_fault(fault: &qmqp::Fault, who: &str) -> Answer {
    match fault {
        qmqp::Fault::Netstring(error, phase) => {
            let text = format!("{error} while {phase}");
            let after = vec![Line::Info(format!("{who}: {text}"))];
            let reply = match error {
                Error::Memory => {
                    return Answer::with_warning(
                        Reply::try_later("Error: insufficient memory"),
                        who,
                    );
                }
                Error::Format | Error::Size => Some(Reply::refused(&text)),
                // Nobody is listening. Unlike Postfix, this holds too where only a netstring's comma is missing: what
                // was cut off on its way may come whole the next time (`tests/spec/differences.md`, 3).
                Error::Disconnect | Error::Timeout => None,
            };
            Answer {
                after,
                reply,
                ..Answer::new(Reply::refused(&text))
            }
        }
        qmqp::Fault::Envelope => {
            Answer::with_warning(Reply::refused("Error: envelope too large"), who)
        }
        qmqp::Fault::Address(phase) => {
            let part = if *phase == Phase::Sender {
                "sender"
            } else {
                "recipient"
            };
            let text = format!("Error: CR, LF or NUL in {part} address");
            Answer::with_warning(Reply::refused(&text), who)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log line about a reply that is lost says so.
    #[test]
    fn before_the_request_is_read_the_connection_is_still_being_initialized() {
        for (fault, phase) in [
            (Fault::Unauthorized, Phase::Connect),
            (Fault::List, Phase::Connect),
            (Fault::Name, Phase::Connect),
            (Fault::Queue, Phase::Reply),
            (Fault::Request(qmqp::Fault::Envelope), Phase::Reply),
        ] {
            let answer = to_fault(&fault, "a[192.0.2.1]", "NOQUEUE: a[192.0.2.1]");
            let text = answer.reply.map(|reply| reply.text().to_vec());
            assert_eq!(answer.phase, phase, "{}", Shown(&text.unwrap_or_default()));
        }
    }
}
