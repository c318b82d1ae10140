//! Why the process ends without having served a client, and the exit statuses that it can have.
#![forbid(unsafe_code)]

use std::fmt::{self, Display};

use crate::config;
use crate::log;
use crate::lookup;

/// Exit status: all is well, or a client was served, whatever it was told.
pub const EX_OK: u8 = 0;

/// Exit status: a `fatal:` line says why.
pub const EX_FATAL: u8 = 1;

/// sysexits.h: the command line makes no sense.
pub const EX_USAGE: u8 = 64;

/// sysexits.h: the configuration is wrong.
pub const EX_CONFIG: u8 = 78;

/// Why the process ends without having served anybody.
pub enum Fatal {
    /// With the line that goes to the log.
    Text(String),
    Config(config::Error),
    /// For a reason that is in the log already.
    Logged,
}

impl Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Text(text) => f.write_str(text),
            Fatal::Config(error) => error.fmt(f),
            Fatal::Logged => log::TooManyErrors.fmt(f),
        }
    }
}

impl From<config::Error> for Fatal {
    fn from(error: config::Error) -> Self {
        Fatal::Config(error)
    }
}

impl From<log::TooManyErrors> for Fatal {
    fn from(_: log::TooManyErrors) -> Self {
        Fatal::Logged
    }
}

impl From<lookup::Error> for Fatal {
    fn from(error: lookup::Error) -> Self {
        match error {
            lookup::Error::TooManyErrors(error) => error.into(),
            lookup::Error::NoPattern { .. }
            | lookup::Error::ReadFile { .. }
            | lookup::Error::Table(_)
            | lookup::Error::TableProblem { .. } => Fatal::from_display(error),
        }
    }
}

impl Fatal {
    pub fn from_display(error: impl Display) -> Self {
        Fatal::Text(error.to_string())
    }
}
