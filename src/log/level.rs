//! The severities of log lines.
//!
//! Follows `tests/spec/logging.md`, section 1.

/// The severities of syslog(3) that this program uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Warning,
    Error,
    Fatal,
    /// syslog(3) logs it like `Fatal`.
    Panic,
}

impl Level {
    /// The word before the text.
    pub fn word(self) -> &'static str {
        match self {
            Level::Info => "",
            Level::Warning => "warning: ",
            Level::Error => "error: ",
            Level::Fatal => "fatal: ",
            Level::Panic => "panic: ",
        }
    }
}
