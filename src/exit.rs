//! The reasons for an end without a served client, and the exit statuses.
//!
//! Follows `tests/spec/master.md`, section 4.4. Logging the reason and answering the client are left to `service`.
#![forbid(unsafe_code)]

use std::fmt::{self, Display};

use crate::config::{self, Config};
use crate::log;
use crate::lookup;
use crate::peer;

/// Exit status: success, or a client was answered.
pub const EX_OK: u8 = 0;

/// Exit status: a `fatal:` line has the reason.
pub const EX_FATAL: u8 = 1;

/// Exit status of sysexits.h: the command line is wrong.
pub const EX_USAGE: u8 = 64;

/// sysexits.h: the configuration is wrong.
pub const EX_CONFIG: u8 = 78;

/// Why the process ends without having served a client.
pub enum Fatal {
    /// A complete log line.
    Text(String),
    Config(config::Error),
    /// An error in a parameter that its value alone does not show.
    Parameter(&'static str, String),
    /// The reason has been logged.
    Logged,
}

impl Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Text(text) | Fatal::Parameter(_, text) => f.write_str(text),
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
            lookup::Error::NoPattern { list } | lookup::Error::TableProblem { list, .. } => {
                Fatal::Parameter(list, error.to_string())
            }
            lookup::Error::ReadFile { .. } | lookup::Error::Table(_) => Fatal::from_display(error),
        }
    }
}

impl From<peer::Error> for Fatal {
    fn from(error: peer::Error) -> Self {
        match error {
            peer::Error::Family { .. } => Fatal::Parameter("inet_protocols", error.to_string()),
            peer::Error::Listening
            | peer::Error::Untold(_)
            | peer::Error::Foreign
            | peer::Error::Disputed(_) => Fatal::from_display(error),
        }
    }
}

impl Fatal {
    /// Adds the parameter that is the reason, if there is none yet.
    pub fn about(self, name: &'static str) -> Self {
        match self {
            Fatal::Text(text) => Fatal::Parameter(name, text),
            Fatal::Config(_) | Fatal::Parameter(..) | Fatal::Logged => self,
        }
    }

    /// Puts the place before the text where main.cf or `-o` sets the parameter.
    ///
    /// Unlike Postfix, whose lines name at most the parameter (`tests/spec/differences.md`, 49).
    pub fn located(self, config: &Config) -> Self {
        match self {
            Fatal::Config(error) => Fatal::Config(config.locate(error)),
            Fatal::Parameter(name, text) => Fatal::Text(config.located(name, &text)),
            Fatal::Text(_) | Fatal::Logged => self,
        }
    }

    pub fn from_display(error: impl Display) -> Self {
        Fatal::Text(error.to_string())
    }
}
