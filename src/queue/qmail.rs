//! The queue method `qmail`: hands the message to a program such as qmail-queue, which reads the content on descriptor
//! 0 and the envelope on descriptor 1; its exit status is the verdict.
//!
//! The program reads the content to its end before the envelope, and so the content is passed on as it arrives. The
//! envelope is complete only with its last NUL, which is not written if the request is wrong or the connection is lost;
//! then the program queues nothing. The program is started before confinement, because a set-uid program could not be
//! started afterwards. Follows qmail-queue(8), and `tests/spec/qmqp.md`, section 14, for the replies.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::config::{self, Config};
use crate::jail::Need;
use crate::log;
use crate::sys::alarm::{self, Bounded};
use crate::sys::{child, time};
use crate::wire::verp::Sender;

use super::{Committed, Origin, Queue, Unavailable, Verdict, queued_line};

/// The bytes of the envelope that are collected before they are written.
const WRITE_SIZE: usize = 64 * 1024;

/// What main.cf sets for the program.
#[derive(Debug)]
pub struct QmailSettings {
    program: PathBuf,
    ipc_timeout: Duration,
    myhostname: String,
}

impl QmailSettings {
    pub fn from_config(config: &Config, program: PathBuf) -> Result<QmailSettings, config::Error> {
        Ok(QmailSettings {
            program,
            ipc_timeout: config.ipc_timeout()?,
            myhostname: config.myhostname()?,
        })
    }
}

/// A message on its way to the program.
pub struct Qmail<'a> {
    settings: &'a QmailSettings,
    queue_id: String,
    pid: Pid,
    /// `None` after the end of the content.
    message: Option<Bounded>,
    envelope: Bounded,
    /// The part of the envelope that has not been written.
    buffer: Vec<u8>,
    /// The first write that failed. The program's exit status may give a better reason.
    failure: Option<io::Error>,
    sender: Vec<u8>,
    size: u64,
    recipients: u64,
}

/// Starts the program, and writes our header.
pub fn start<'a>(
    settings: &'a QmailSettings,
    origin: &Origin<'_>,
) -> Result<Qmail<'a>, Unavailable> {
    let unavailable = |why: &dyn std::fmt::Display| {
        log::warning!("{}: {why}", settings.program.display());
        Unavailable
    };
    check_program(&settings.program).map_err(|why| unavailable(&why))?;
    let (pid, message, envelope) = child::start_reader(&settings.program)
        .map_err(|error| unavailable(&log::error_text(&error)))?;
    let bounded = |fd: OwnedFd| Bounded {
        fd,
        limit: settings.ipc_timeout,
    };
    let mut queue = Qmail {
        settings,
        queue_id: format!("qp {pid}"),
        pid,
        message: Some(bounded(message)),
        envelope: bounded(envelope),
        buffer: Vec::new(),
        failure: None,
        sender: Vec::new(),
        size: 0,
        recipients: 0,
    };
    queue.content(received(origin, &settings.myhostname).into_bytes());
    Ok(queue)
}

/// A set-uid program that cannot become its owner would fail later, for every message.
fn check_program(program: &Path) -> Result<(), &'static str> {
    let set_id = fs::metadata(program).is_ok_and(|file| file.mode() & 0o6000 != 0);
    if set_id && prctl::get_no_new_privs().unwrap_or(false) {
        return Err("a set-uid program, and this process was started with no_new_privs");
    }
    Ok(())
}

impl Queue for Qmail<'_> {
    fn needs(&self) -> Vec<Need<'_>> {
        vec![Need::Wait(self.pid)]
    }

    fn queue_id(&mut self) -> Result<String, Unavailable> {
        Ok(self.queue_id.clone())
    }

    fn content(&mut self, piece: Vec<u8>) {
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.size = self.size.saturating_add(length);
        if let (None, Some(message)) = (&self.failure, &mut self.message) {
            self.failure = message.write_all(&piece).err();
        }
    }

    fn sender(&mut self, sender: &Sender) {
        self.message = None;
        self.sender.clone_from(&sender.address);
        self.buffer.push(b'F');
        // A request for VERP is passed on to qmail.
        self.buffer.extend_from_slice(&sender.wire());
        self.buffer.push(0);
    }

    fn recipient(&mut self, recipient: &[u8]) {
        self.recipients = self.recipients.saturating_add(1);
        self.buffer.push(b'T');
        self.buffer.extend_from_slice(recipient);
        self.buffer.push(0);
        if self.buffer.len() >= WRITE_SIZE {
            self.write_envelope();
        }
    }

    fn commit(mut self: Box<Self>) -> Committed {
        if self.recipients == 0 {
            return Verdict::NoRecipients.into();
        }
        self.buffer.push(0);
        self.write_envelope();
        let Qmail {
            settings,
            queue_id,
            pid,
            message,
            envelope,
            failure,
            sender,
            size,
            recipients,
            ..
        } = *self;
        drop((message, envelope));
        // A program that did not read in time is not waited for again.
        let timed_out = failure.as_ref().map(io::Error::kind) == Some(io::ErrorKind::TimedOut);
        let status = if timed_out {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            alarm::bounded(settings.ipc_timeout, || waitpid(pid, None))
        };
        let program = settings.program.display();
        let (why, verdict) = match (status, failure) {
            (Ok(WaitStatus::Exited(_, 0)), None) => (None, Verdict::Queued),
            (Ok(WaitStatus::Exited(_, 0)), Some(error)) => {
                let why = log::error_text(&error);
                (Some(format!("write to {program}: {why}")), TEMPORARY)
            }
            (Ok(WaitStatus::Exited(_, code)), _) => {
                let why = format!("{program}: exit status {code}");
                (Some(why), verdict(code))
            }
            (Ok(status), _) => (Some(format!("{program}: {status:?}")), TEMPORARY),
            (Err(error), _) => {
                let why = log::error_text(&error);
                (Some(format!("wait for {program}: {why}")), TEMPORARY)
            }
        };
        if let Some(why) = why {
            log::warning!("{queue_id}: {why}");
            return verdict.into();
        }
        let line = queued_line(&queue_id, &sender, size, recipients);
        Committed {
            verdict,
            after_reply: Some(Box::new(move || log::info!("{line}"))),
        }
    }
}

impl Qmail<'_> {
    fn write_envelope(&mut self) {
        if self.failure.is_none() {
            self.failure = self.envelope.write_all(&self.buffer).err();
        }
        self.buffer.clear();
    }
}

/// The verdict if the program gives no reason.
const TEMPORARY: Verdict = Verdict::Failed("qq temporary problem (#4.3.0)");

/// The verdict of an exit status, with qmail's texts.
fn verdict(code: i32) -> Verdict {
    match code {
        0 => Verdict::Queued,
        11 => Verdict::Refused("envelope address too long for qq (#5.1.3)"),
        31 => Verdict::Refused("mail server permanently rejected message (#5.3.0)"),
        12..=40 => Verdict::Refused("qq permanent problem (#5.3.0)"),
        51 => Verdict::Failed("qq out of memory (#4.3.0)"),
        52 => Verdict::Failed("qq timeout (#4.3.0)"),
        53 => Verdict::Failed("qq write error or disk full (#4.3.0)"),
        54 => Verdict::Failed("qq read error (#4.3.0)"),
        55 => Verdict::Failed("qq unable to read configuration (#4.3.0)"),
        61 => Verdict::Failed("qq trouble in home directory (#4.3.0)"),
        62..=66 => Verdict::Failed("qq trouble creating files in queue (#4.3.0)"),
        71 => Verdict::Failed("mail server temporarily rejected message (#4.3.0)"),
        72 => Verdict::Failed("connection to mail server timed out (#4.4.1)"),
        73 => Verdict::Failed("connection to mail server rejected (#4.4.1)"),
        74 => Verdict::Failed("communication with mail server failed (#4.4.2)"),
        81 | 91 => Verdict::Failed("qq internal bug (#4.3.0)"),
        _ => TEMPORARY,
    }
}

/// The Received: header in qmail's form: without an id, which does not exist yet, and with the time in UTC.
fn received(origin: &Origin<'_>, myhostname: &str) -> String {
    let at = origin.arrival.utc();
    let month = time::MONTHS.get(at.month).unwrap_or(&"Jan");
    format!(
        "Received: from {} ({})\n  by {myhostname} with QMQP; {} {month} {} {:02}:{:02}:{:02} -0000\n",
        origin.peer.name, origin.peer.addr, at.day, at.year, at.hour, at.minute, at.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exit_status_zero_says_queued_and_only_11_to_40_are_for_good() {
        for code in -1..256 {
            let verdict = verdict(code);
            assert_eq!(verdict == Verdict::Queued, code == 0, "{code}");
            let refused = matches!(verdict, Verdict::Refused(_));
            assert_eq!(refused, (11..=40).contains(&code), "{code}");
        }
    }
}
