//! Why the process ends without having served a client, and the exit statuses that it can have.
#![forbid(unsafe_code)]

use std::fmt::{self, Display};

use crate::config::{self, Config};
use crate::log;
use crate::lookup;
use crate::peer;

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
    /// What is wrong with the value of a parameter, where it takes more than the value to see.
    Parameter(&'static str, String),
    /// For a reason that is in the log already.
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
    /// Names the parameter that is the reason, where that is not known yet.
    pub fn about(self, name: &'static str) -> Self {
        match self {
            Fatal::Text(text) => Fatal::Parameter(name, text),
            Fatal::Config(_) | Fatal::Parameter(..) | Fatal::Logged => self,
        }
    }

    /// Puts the place in front where main.cf or `-o` sets what is wrong.
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
