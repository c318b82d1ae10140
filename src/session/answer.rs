//! The reply and the log lines for each end of a transaction.
//!
//! All replies of the program are in this file. `K` is only for [`Verdict::Queued`], `D` only for a request that can
//! never succeed, and `Z` for all else. There is no catch-all arm: a new fault does not compile without a decision on
//! its reply. Follows `tests/spec/qmqp.md`, section 8, which has the texts. Sending is left to `session::client`.

use std::fmt::{self, Display};
use std::net::IpAddr;

use crate::jail;
use crate::log::{self, Shown};
use crate::queue::{Unavailable, Verdict};
use crate::wire::netstring::Error;
use crate::wire::qmqp::{self, Phase};

use super::reply::Reply;

/// The result of a session, for the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The message is in the queue. The reply may have been lost.
    Queued,
    /// The client was answered.
    Served,
    /// An error on this side that an administrator has to mend.
    Failed,
}

/// Why a transaction ends before the queue's verdict.
pub enum Fault {
    /// The client is not in qmqpd_authorized_clients.
    Unauthorized,
    /// The list cannot be evaluated.
    List,
    /// The list depends on the client's name, which could not be looked up.
    Name,
    /// The request is wrong, or did not arrive.
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

/// One complete line for the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Info(String),
    Warning(String),
    Fatal(String),
}

/// A reply, and the log lines before and after it.
#[derive(Debug)]
pub struct Answer {
    pub reply: Option<Reply>,
    /// Logged before the pause and the reply.
    pub before: Vec<Line>,
    /// Logged after the reply: lines about the client alone must not delay it.
    pub after: Vec<Line>,
    /// The step that the log line names if the reply is lost.
    pub phase: Phase,
    pub outcome: Outcome,
}

/// The text for an error that only an administrator can mend.
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

    /// An error on this side, or one that the client's user will ask about: a warning with the text of the reply.
    ///
    /// Unlike Postfix, which omits some replies: each reply other than `K` has one line with the client
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

/// Why a connection gets no process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// The client with this address has as many connections as it may have.
    Share(IpAddr),
    /// The system has no process or no memory for it.
    NoProcess,
    /// The connections of the client with this address were not counted in time.
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
        // The first digit of the queue's reason tells whether the refusal is permanent.
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

/// The answer to a request that was not completed. `who` is `QID: NAME[ADDR]`, or `NOQUEUE: ...` before there is a
/// queue id.
pub fn to_fault(fault: &Fault, namaddr: &str, who: &str) -> Answer {
    match fault {
        Fault::Unauthorized => {
            let text = format!("Error: {namaddr} is not authorized to use this service");
            // Unlike Postfix, which logs nothing: an administrator needs this line to learn why mail does not come, or
            // to block a client that tries again and again (`tests/spec/differences.md`, 8).
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
                // The client has gone. Unlike Postfix, this holds also if only a netstring's comma is missing: a
                // request that was cut off may come complete the next time (`tests/spec/differences.md`, 3).
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

    /// The log line about a lost reply has this phase.
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
