//! How serious a line is.

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
    /// What stands before the text.
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
