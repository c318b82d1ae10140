//! Where a log line goes, and what it may contain.
//!
//! Syslog (RFC 3164 datagrams to /dev/log), Postfix's postlogd, or standard error; one of them, chosen by `service`
//! from main.cf. Each message is made printable and cut here, whoever wrote it, so that nothing a client sends can
//! forge a line. Does not know what a message means. Authority: the logging page of the specification, sections 1-5.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use syslog::{LogFormat, Logger, LoggerBackend, Severity};

use crate::sys::child::own_id;
use crate::sys::time;

/// The longest message text in bytes, the level word and what stands before it not counted.
pub const TEXT_LIMIT: usize = 2000;

/// How many `error` messages a process may log before it has to end.
pub const ERROR_LIMIT: u32 = 13;

/// How long a log daemon that does not take messages may hold the session up, for one message.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// How long such a daemon is left alone then: clients wait 60 seconds for their reply, and `-v` makes hundreds of lines.
const DEAF_TIME: Duration = Duration::from_secs(60);

/// LOG_MAIL of syslog(3), the facility until main.cf has been read.
pub const FACILITY_MAIL: u32 = 2;

/// The severities of syslog(3) that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Warning,
    Error,
    Fatal,
    /// Logged by syslog(3) as `Fatal` is.
    Panic,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Info => "",
            Level::Warning => "warning: ",
            Level::Error => "error: ",
            Level::Fatal => "fatal: ",
            Level::Panic => "panic: ",
        }
    }
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The local syslog daemon, with a facility as syslog(3) numbers them (`mail` is 2).
    Syslog { facility: u32 },
    /// postlogd(8)'s datagram socket; `host` is the first label of the machine's name.
    Postlog { socket: PathBuf, host: String },
    /// Standard error, one line a message, for programs that are supervised by their output.
    Stderr,
    /// Memory, for a command that shows the lines to whoever has called it: [`take_kept`].
    Kept,
}

/// An open way out. None of them is ever given up for another: a line that cannot be sent is dropped.
enum Sink {
    Syslog(Logger<LoggerBackend, Rfc3164>),
    Postlog(UnixDatagram),
    Stderr,
    Kept(Vec<(Level, String)>),
}

struct Log {
    /// `postfix/qmqpd`.
    tag: String,
    destination: Destination,
    sink: Option<Sink>,
    /// `-V`: everything goes to standard error as well.
    copy_to_stderr: bool,
    /// smtputf8_enable: UTF-8 stays as it is.
    utf8: bool,
    errors: u32,
    /// Until then lines are dropped: one could not be sent within [`SEND_LIMIT`].
    deaf_until: Option<Instant>,
    /// After confinement a lost connection to the log cannot be made again.
    may_connect: bool,
}

static LOG: Mutex<Log> = Mutex::new(Log {
    tag: String::new(),
    destination: Destination::Syslog {
        facility: FACILITY_MAIL,
    },
    sink: None,
    copy_to_stderr: false,
    utf8: false,
    errors: 0,
    deaf_until: None,
    may_connect: true,
});

static VERBOSE: AtomicU32 = AtomicU32::new(0);

/// The process has logged [`ERROR_LIMIT`] errors; that it must end has been logged as well.
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

/// Names the destination of what follows. Nothing is opened before [`connect`] or the first message.
pub fn configure(tag: &str, destination: Destination, utf8: bool) {
    let mut log = log();
    tag.clone_into(&mut log.tag);
    log.utf8 = utf8;
    if log.destination != destination {
        log.sink = None;
        log.destination = destination;
    }
}

/// Opens the log now: a chroot or a filter of system calls may put it out of reach later.
pub fn connect() {
    log().connect();
}

/// From here on a log that is gone stays gone; to connect again is no longer allowed.
pub fn stay_with_connection() {
    log().may_connect = false;
}

/// Everything goes to standard error as well (`-V`).
pub fn copy_to_stderr() {
    log().copy_to_stderr = true;
}

/// What has been logged to [`Destination::Kept`] since the last call, without the word for its level.
pub fn take_kept() -> Vec<(Level, String)> {
    match &mut log().sink {
        Some(Sink::Kept(lines)) => std::mem::take(lines),
        Some(Sink::Syslog(_) | Sink::Postlog(_) | Sink::Stderr) | None => Vec::new(),
    }
}

/// How many times `-v` was given, plus debug_peer_level while it applies.
pub fn verbosity() -> u32 {
    VERBOSE.load(Relaxed)
}

/// Sets what [`verbosity`] answers.
pub fn set_verbosity(level: u32) {
    VERBOSE.store(level, Relaxed);
}

/// Logs what an administrator reads to follow normal operation.
pub fn info(text: fmt::Arguments<'_>) {
    log().send(Level::Info, text);
}

/// Logs an info line at verbosity `level` and above. Where the arguments cost something, ask [`verbosity`] first.
pub fn debug(level: u32, text: fmt::Arguments<'_>) {
    if verbosity() >= level {
        info(text);
    }
}

/// Logs what went wrong and leaves the process going.
pub fn warning(text: fmt::Arguments<'_>) {
    log().send(Level::Warning, text);
}

/// Logs what needs an administrator. The [`ERROR_LIMIT`]th of a process logs, too, that the process has to end.
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

/// Logs why the process ends. Ending it is the caller's part.
pub fn fatal(text: fmt::Arguments<'_>) {
    log().send(Level::Fatal, text);
}

/// Logs an error of this program itself. Where that happened while a line was being logged, it is lost.
pub fn panic(text: fmt::Arguments<'_>) {
    if let Ok(mut log) = LOG.try_lock() {
        log.send(Level::Panic, text);
    }
}

/// The descriptor of the open log and the bytes that have to stand before a fatal message's text, for a handler that
/// can do no more than write.
pub fn raw_fatal() -> Option<(RawFd, Vec<u8>)> {
    let log = log();
    let (fd, prefix) = match log.sink.as_ref()? {
        Sink::Syslog(logger) => {
            let fd = match &logger.backend {
                LoggerBackend::Unix(socket) => socket.as_raw_fd(),
                LoggerBackend::UnixStream(stream) => stream.get_ref().as_raw_fd(),
                LoggerBackend::Udp(..) | LoggerBackend::Tcp(..) => return None,
            };
            let line = logger.formatter.line(Severity::LOG_CRIT, &log.tag, "");
            (fd, line)
        }
        Sink::Postlog(socket) => {
            let line = postlog_line(&log.destination, &log.tag, "");
            (socket.as_raw_fd(), line)
        }
        Sink::Stderr | Sink::Kept(_) => (io::stderr().as_raw_fd(), format!("{}: ", log.tag)),
    };
    Some((fd, (prefix + Level::Fatal.word()).into_bytes()))
}

/// The words of strerror(3) alone, which is how Postfix shows a failed system call.
pub fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// The words of strerror(3) for an error number.
pub fn errno_text(errno: Errno) -> String {
    error_text(&errno.into())
}

/// Bytes from outside, shown in a message: ASCII and UTF-8 as they are, any other byte as `?`, up to a NUL.
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
            Destination::Syslog { facility } => connect_syslog(*facility).map(Sink::Syslog),
            Destination::Postlog { socket, .. } => connect_postlog(socket).map(Sink::Postlog),
            Destination::Stderr => Some(Sink::Stderr),
            Destination::Kept => Some(Sink::Kept(Vec::new())),
        };
    }

    fn send(&mut self, level: Level, text: fmt::Arguments<'_>) {
        let mut message = String::from(level.word());
        message.push_str(&printable(&text.to_string(), self.utf8));
        if self.copy_to_stderr && !matches!(self.sink, Some(Sink::Stderr)) {
            write_stderr(&format!("{}: {message}\n", self.tag));
        }
        let begin = Instant::now();
        if self.deaf_until.is_some_and(|end| begin < end) {
            return;
        }
        self.connect();
        let sent = match &mut self.sink {
            None => return,
            Some(Sink::Syslog(logger)) => send_syslog(logger, level, &self.tag, &message),
            Some(Sink::Postlog(socket)) => socket
                .send(postlog_line(&self.destination, &self.tag, &message).as_bytes())
                .is_ok(),
            Some(Sink::Stderr) => {
                write_stderr(&format!("{}: {message}\n", self.tag));
                true
            }
            // Whoever would have shown it does not come to that.
            Some(Sink::Kept(_)) if level == Level::Panic => {
                write_stderr(&format!("{}: {message}\n", self.tag));
                true
            }
            Some(Sink::Kept(lines)) => {
                lines.push((level, message.split_off(level.word().len())));
                true
            }
        };
        if !sent && begin.elapsed() >= SEND_LIMIT {
            self.deaf_until = begin.checked_add(DEAF_TIME);
        }
        // A restarted daemon has a new socket. The next message looks for it, while that is allowed.
        if !sent && self.may_connect {
            self.sink = None;
        }
    }
}

/// Replaces what is not printable by `?` and cuts at [`TEXT_LIMIT`]. A NUL ends the text.
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

/// The form in which syslog(3) of the C library writes a datagram.
#[derive(Clone)]
struct Rfc3164 {
    facility: u32,
}

impl Rfc3164 {
    fn line(&self, severity: Severity, tag: &str, message: &str) -> String {
        let (secs, _) = time::now();
        let now = time::local(secs);
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
        // One write is one datagram. Not write_all: that would repeat an interrupted send without end.
        if w.write(line.as_bytes())? < line.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        Ok(())
    }
}

fn send_syslog(
    logger: &mut Logger<LoggerBackend, Rfc3164>,
    level: Level,
    tag: &str,
    message: &str,
) -> bool {
    match level {
        Level::Info => logger.info((tag, message)),
        Level::Warning => logger.warning((tag, message)),
        Level::Error => logger.err((tag, message)),
        Level::Fatal | Level::Panic => logger.crit((tag, message)),
    }
    .is_ok()
}

/// `Nov 02 13:57:42 mail postfix/qmqpd[17266]: message`, as postlogd(8) writes it to its file.
fn postlog_line(destination: &Destination, tag: &str, message: &str) -> String {
    let host = match destination {
        Destination::Postlog { host, .. } => host,
        Destination::Syslog { .. } | Destination::Stderr | Destination::Kept => "",
    };
    let (secs, _) = time::now();
    let now = time::local(secs);
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

fn connect_syslog(facility: u32) -> Option<Logger<LoggerBackend, Rfc3164>> {
    let logger = syslog::unix(Rfc3164 { facility }).ok()?;
    let bounded = match &logger.backend {
        LoggerBackend::Unix(socket) => socket.set_write_timeout(Some(SEND_LIMIT)),
        LoggerBackend::UnixStream(stream) => stream.get_ref().set_write_timeout(Some(SEND_LIMIT)),
        LoggerBackend::Udp(..) | LoggerBackend::Tcp(..) => return None,
    };
    bounded.ok().map(|()| logger)
}

fn connect_postlog(path: &Path) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(path).ok()?;
    socket.set_write_timeout(Some(SEND_LIMIT)).ok()?;
    Some(socket)
}

/// One write, so that lines of several processes do not mix. If standard error is gone there is nowhere left to say so.
fn write_stderr(line: &str) {
    drop(io::stderr().write(line.as_bytes()));
}
