//! Writes log lines to syslog (RFC 3164 datagrams to /dev/log), to Postfix's postlogd, or to standard error.
//!
//! Each message is made printable and cut here, so that no text of a client can forge a line. Follows
//! `tests/spec/logging.md`, sections 1 to 5. `service` chooses the destination from main.cf; `log::way` waits for a log
//! that does not read.
#![forbid(unsafe_code)]

mod level;
mod macros;
#[cfg(test)]
mod tests;
mod way;

pub use level::Level;
pub(crate) use macros::{debug, error, fatal, info, warning};

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use syslog::{LogFormat, Logger, Severity};

use crate::sys::child::own_id;
use crate::sys::ignore;
use crate::sys::seccomp::OpenLog;
use crate::sys::time::{self, Moment};

use way::{Socket, Way, write_line};

/// The longest message text in bytes, without level and prefix.
pub const TEXT_LIMIT: usize = 2000;

/// The number of `error` messages after which a process has to end.
pub const ERROR_LIMIT: u32 = 13;

/// The sockets of syslog daemons, in the order of the attempts.
const SYSLOG_SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// LOG_MAIL of syslog(3), the facility until main.cf has been read.
pub const FACILITY_MAIL: u32 = 2;

/// The destination of log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The local syslog daemon, with syslog(3)'s number of the facility (`mail` is 2).
    Syslog { facility: u32 },
    /// postlogd(8)'s datagram socket; `host` is the first label of the machine's name.
    Postlog { socket: PathBuf, host: String },
    /// Standard error, one line for each message, for supervised programs. The journal also gets the severity.
    Stderr { journal: bool },
    /// Memory, for a command that prints the lines: [`take_kept`].
    Kept,
}

/// An open destination. It is never replaced by another: a line that cannot be sent is dropped.
enum Sink {
    Syslog(Logger<Socket, Rfc3164>),
    Postlog(Socket),
    Stderr,
    Kept(Vec<(Level, String)>),
}

struct Log {
    /// `postfix/qmqpd`.
    tag: String,
    destination: Destination,
    sink: Option<Sink>,
    way: Way,
    /// `-V`: lines go to standard error as well.
    copy_to_stderr: bool,
    copy_way: Way,
    /// smtputf8_enable: UTF-8 is not changed.
    utf8: bool,
    errors: u32,
    /// Whether a lost connection to the log may be made again; not after confinement.
    may_connect: bool,
}

static LOG: Mutex<Log> = Mutex::new(Log {
    tag: String::new(),
    destination: Destination::Syslog {
        facility: FACILITY_MAIL,
    },
    sink: None,
    way: Way::NEW,
    copy_to_stderr: false,
    copy_way: Way::NEW,
    utf8: false,
    errors: 0,
    may_connect: true,
});

static VERBOSE: AtomicU32 = AtomicU32::new(0);

/// The process has logged [`ERROR_LIMIT`] errors and the line that it has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyErrors;

impl Display for TooManyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many errors - program terminated")
    }
}

fn log() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets the destination of the following lines. It is opened by [`connect`] or the first message.
pub fn configure(tag: &str, destination: Destination, utf8: bool) {
    let mut log = log();
    tag.clone_into(&mut log.tag);
    log.utf8 = utf8;
    if log.destination != destination {
        log.sink = None;
        log.way = Way::NEW;
        log.destination = destination;
    }
}

/// Opens the log now: later a chroot or a filter of system calls may forbid it.
pub fn connect() {
    log().connect();
}

/// Forbids to connect to the log again.
pub fn stay_with_connection() {
    log().may_connect = false;
}

/// In a new process with its parent's memory: lines that the parent has dropped are not counted again.
pub fn begin_process() {
    let mut log = log();
    log.way.forget_dropped();
    log.copy_way.forget_dropped();
}

/// `-V`: sends lines to standard error as well.
pub fn copy_to_stderr() {
    log().copy_to_stderr = true;
}

/// The lines for [`Destination::Kept`] since the last call, without their levels.
pub fn take_kept() -> Vec<(Level, String)> {
    match &mut log().sink {
        Some(Sink::Kept(lines)) => std::mem::take(lines),
        Some(Sink::Syslog(_) | Sink::Postlog(_) | Sink::Stderr) | None => Vec::new(),
    }
}

/// The number of `-v`, and debug_peer_level if it applies.
pub fn verbosity() -> u32 {
    VERBOSE.load(Relaxed)
}

pub fn set_verbosity(level: u32) {
    VERBOSE.store(level, Relaxed);
}

/// Logs a line about normal operation.
pub fn info(text: fmt::Arguments<'_>) {
    log().send(Level::Info, text);
}

/// Logs an error after which the process continues.
pub fn warning(text: fmt::Arguments<'_>) {
    log().send(Level::Warning, text);
}

/// Logs an error that an administrator has to mend. The [`ERROR_LIMIT`]th one of a process also logs that the process
/// has to end.
pub fn error(text: fmt::Arguments<'_>) -> Result<(), TooManyErrors> {
    let mut log = log();
    log.send(Level::Error, text);
    log.errors = log.errors.saturating_add(1);
    if log.errors < ERROR_LIMIT {
        return Ok(());
    }
    log.send(Level::Fatal, format_args!("{TooManyErrors}"));
    Err(TooManyErrors)
}

/// Logs why the process ends. The caller ends it.
pub fn fatal(text: fmt::Arguments<'_>) {
    log().send(Level::Fatal, text);
}

/// Logs an error of this program itself. During the logging of another line it is lost.
pub fn panic(text: fmt::Arguments<'_>) {
    if let Ok(mut log) = LOG.try_lock() {
        log.send(Level::Panic, text);
    }
}

/// The open log, and the bytes around the text of a fatal message, for a signal handler, which can only write.
pub fn raw_fatal() -> Option<OpenLog> {
    let log = log();
    let (fd, prefix, ending) = match log.sink.as_ref()? {
        Sink::Syslog(logger) => {
            let line = logger.formatter.line(Severity::LOG_CRIT, &log.tag, "");
            let socket = &logger.backend;
            (socket.as_fd().as_raw_fd(), line, socket.ending())
        }
        Sink::Postlog(socket) => {
            let line = postlog_line(&log.destination, &log.tag, "");
            (socket.as_fd().as_raw_fd(), line, socket.ending())
        }
        Sink::Stderr | Sink::Kept(_) => {
            let line = stderr_line(&log.destination, &log.tag, Level::Fatal, "");
            (io::stderr().as_raw_fd(), line, &b"\n"[..])
        }
    };
    let prefix = (prefix + Level::Fatal.word()).into_bytes();
    Some(OpenLog { fd, prefix, ending })
}

/// The text of strerror(3) alone, as in Postfix's log lines.
pub fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// The text of strerror(3) for an error number.
pub fn errno_text(errno: Errno) -> String {
    error_text(&errno.into())
}

/// Bytes from outside for a message: ASCII and UTF-8 unchanged, `?` for any other byte, up to a NUL.
pub struct Shown<'a>(pub &'a [u8]);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.split(|&b| b == 0).next().unwrap_or_default();
        for chunk in text.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for _ in chunk.invalid() {
                f.write_char('?')?;
            }
        }
        Ok(())
    }
}

impl Log {
    fn connect(&mut self) {
        if self.sink.is_some() || !self.may_connect {
            return;
        }
        self.sink = match &self.destination {
            Destination::Syslog { facility } => {
                let formatter = Rfc3164 {
                    facility: *facility,
                };
                let socket = self.way.patiently(connect_syslog);
                socket.map(|socket| Sink::Syslog(Logger::new(socket, formatter)))
            }
            // Unlike Postfix, whose daemons drop the line: Postfix may be stopped, and the line may tell so
            // (`tests/spec/differences.md`, 51).
            Destination::Postlog { socket, .. } => match Socket::datagram(socket) {
                Ok(socket) => Some(Sink::Postlog(socket)),
                Err(_) => {
                    let formatter = Rfc3164 {
                        facility: FACILITY_MAIL,
                    };
                    let socket = self.way.patiently(connect_syslog);
                    socket.map(|socket| Sink::Syslog(Logger::new(socket, formatter)))
                }
            },
            Destination::Stderr { .. } => Some(Sink::Stderr),
            Destination::Kept => Some(Sink::Kept(Vec::new())),
        };
    }

    fn send(&mut self, level: Level, text: fmt::Arguments<'_>) {
        let mut message = String::from(level.word());
        message.push_str(&printable(&text.to_string(), self.utf8));
        self.connect();
        // A line that is kept for printing is lost after a panic.
        let not_shown = level == Level::Panic && matches!(self.sink, Some(Sink::Kept(_)));
        if self.copy_to_stderr && !matches!(self.sink, Some(Sink::Stderr)) || not_shown {
            let tag = &self.tag;
            let write = |_, message: &str, limit| write_stderr(&format!("{tag}: {message}"), limit);
            ignore(self.copy_way.send(level, &message, write));
        }
        let (sink, tag, destination) = (&mut self.sink, &self.tag, &self.destination);
        let write =
            |level, message: &str, limit| write(sink, destination, tag, (level, message), limit);
        let sent = self.way.send(level, &message, write);
        // A restarted daemon has a new socket. The next message connects to it, if that is allowed.
        if sent.is_err_and(|error| error.kind() != io::ErrorKind::TimedOut) && self.may_connect {
            self.sink = None;
        }
    }
}

/// Writes one line to the destination.
fn write(
    sink: &mut Option<Sink>,
    destination: &Destination,
    tag: &str,
    (level, message): (Level, &str),
    limit: Duration,
) -> io::Result<()> {
    match sink {
        None => Err(io::ErrorKind::NotConnected.into()),
        Some(Sink::Syslog(logger)) => {
            logger.backend.set_limit(limit);
            send_syslog(logger, level, tag, message)
        }
        Some(Sink::Postlog(socket)) => {
            socket.set_limit(limit);
            let line = postlog_line(destination, tag, message);
            socket.write(line.as_bytes()).map(drop)
        }
        Some(Sink::Stderr) => write_stderr(&stderr_line(destination, tag, level, message), limit),
        Some(Sink::Kept(lines)) => {
            let text = message.strip_prefix(level.word()).unwrap_or(message);
            lines.push((level, text.to_owned()));
            Ok(())
        }
    }
}

/// Replaces bytes that are not printable by `?`, and cuts at [`TEXT_LIMIT`]. A NUL ends the text.
fn printable(text: &str, utf8: bool) -> String {
    let mut shown = String::with_capacity(text.len().min(TEXT_LIMIT));
    for c in text.chars() {
        match c {
            '\0' => break,
            ' '..='~' => shown.push(c),
            _ if utf8 && !c.is_ascii() => shown.push(c),
            _ => (0..c.len_utf8()).for_each(|_| shown.push('?')),
        }
        if shown.len() >= TEXT_LIMIT {
            break;
        }
    }
    while shown.len() > TEXT_LIMIT {
        shown.pop();
    }
    shown
}

/// The datagram of the C library's syslog(3).
#[derive(Clone)]
struct Rfc3164 {
    facility: u32,
}

impl Rfc3164 {
    fn line(&self, severity: Severity, tag: &str, message: &str) -> String {
        let now = Moment::now().local();
        format!(
            "<{}>{} {:>2} {:02}:{:02}:{:02} {tag}[{}]: {message}",
            self.facility * 8 + severity as u32,
            time::MONTHS[now.month],
            now.day,
            now.hour,
            now.minute,
            now.second,
            own_id(),
        )
    }
}

impl LogFormat<(&str, &str)> for Rfc3164 {
    fn format<W: Write>(
        &self,
        w: &mut W,
        severity: Severity,
        (tag, message): (&str, &str),
    ) -> syslog::Result<()> {
        let line = self.line(severity, tag, message);
        // One write is one line. write_all would repeat an interrupted send without end.
        if w.write(line.as_bytes())? < line.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        Ok(())
    }
}

fn send_syslog(
    logger: &mut Logger<Socket, Rfc3164>,
    level: Level,
    tag: &str,
    message: &str,
) -> io::Result<()> {
    match level {
        Level::Info => logger.info((tag, message)),
        Level::Warning => logger.warning((tag, message)),
        Level::Error => logger.err((tag, message)),
        Level::Fatal | Level::Panic => logger.crit((tag, message)),
    }
    .map_err(|error| match error {
        syslog::Error::Io(error) | syslog::Error::Write(error) => error,
        syslog::Error::Initialization(error) => io::Error::other(error),
    })
}

/// The name of the level for syslog(3).
fn severity(level: Level) -> Severity {
    match level {
        Level::Info => Severity::LOG_INFO,
        Level::Warning => Severity::LOG_WARNING,
        Level::Error => Severity::LOG_ERR,
        Level::Fatal | Level::Panic => Severity::LOG_CRIT,
    }
}

/// `Nov 02 13:57:42 mail postfix/qmqpd[17266]: message`, the form of postlogd(8)'s file.
fn postlog_line(destination: &Destination, tag: &str, message: &str) -> String {
    let host = match destination {
        Destination::Postlog { host, .. } => host,
        Destination::Syslog { .. } | Destination::Stderr { .. } | Destination::Kept => "",
    };
    let now = Moment::now().local();
    format!(
        "{} {:02} {:02}:{:02}:{:02} {host} {tag}[{}]: {message}",
        time::MONTHS[now.month],
        now.day,
        now.hour,
        now.minute,
        now.second,
        own_id(),
    )
}

/// Connects to the first syslog daemon, within `limit`.
fn connect_syslog(limit: Duration) -> Option<Socket> {
    for path in SYSLOG_SOCKETS.map(Path::new) {
        match Socket::datagram(path) {
            Ok(socket) => return Some(socket),
            Err(error) if error.raw_os_error() == Some(Errno::EPROTOTYPE as i32) => {
                return Socket::stream(path, limit).ok();
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    None
}

/// `postfix/qmqpd[17266]: message`; for the journal after the severity, as in sd-daemon(3).
fn stderr_line(destination: &Destination, tag: &str, level: Level, message: &str) -> String {
    let id = own_id();
    match destination {
        Destination::Stderr { journal: true } => {
            let severity = severity(level) as u32;
            format!("<{severity}>{tag}[{id}]: {message}")
        }
        Destination::Stderr { journal: false }
        | Destination::Syslog { .. }
        | Destination::Postlog { .. }
        | Destination::Kept => format!("{tag}[{id}]: {message}"),
    }
}

fn write_stderr(line: &str, limit: Duration) -> io::Result<()> {
    write_line(io::stderr().as_fd(), &format!("{line}\n"), limit)
}
