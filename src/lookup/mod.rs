//! Decides whether a client is listed: yes, no, or not known.
//!
//! Lists of names, addresses, networks, files and lookup tables, as in qmqpd_authorized_clients and debug_peer_list.
//! "Not known" is an error of its own, because a list may let clients in or keep them out, and so neither answer is
//! safe. Follows `tests/spec/client-access.md`, sections 1 and 4; where versions of Postfix differ, 3.12. The
//! consequence of an answer is left to `session`.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::string_slice))]

mod braces;
mod cdb;
mod cidr;
mod constant;
mod database;
#[cfg(any(test, fuzzing))]
pub mod in_memory;
mod inline;
mod items;
mod match_list;
mod networks;
mod pattern;
mod postmap;
mod proxy;
mod regexp;
mod rules;
mod table;
mod tables;
mod text;
mod texthash;

#[cfg(test)]
mod tests;

use std::fmt::{self, Display};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{self, Config};
use crate::log;

pub use match_list::{Listing, Literal, MatchList, parent_style};
pub use pattern::as_ipv4;
pub use postmap::{PACKAGE_QUESTION, RunAs};
pub use tables::Tables;

/// The settings of lookup tables.
#[derive(Debug, Clone)]
pub struct TableSettings {
    /// Whether text in a table that is not UTF-8 is an error.
    pub smtputf8_enable: bool,
    /// Whether the process ends if a table cannot be opened, even without a client that needs it.
    pub daemon_table_open_error_is_fatal: bool,
    /// The name of proxymap(8)'s service, and of its socket.
    pub proxymap_service_name: String,
    /// The limit of each wait for proxymap.
    pub ipc_timeout: Duration,
    /// postmap(1), by its absolute path.
    pub postmap: PathBuf,
    /// qmqpd_sandbox: whether postmap gives up system calls.
    pub sandbox: bool,
    /// The directory of main.cf, for postmap.
    pub config_directory: PathBuf,
    /// The directory of dynamicmaps.cf, if main.cf sets it.
    pub meta_directory: Option<PathBuf>,
}

impl TableSettings {
    pub fn from_config(config: &Config) -> Result<TableSettings, config::Error> {
        Ok(TableSettings {
            smtputf8_enable: config.smtputf8_enable()?,
            daemon_table_open_error_is_fatal: config.daemon_table_open_error_is_fatal()?,
            proxymap_service_name: config.proxymap_service_name()?,
            ipc_timeout: config.ipc_timeout()?,
            postmap: config.command_directory()?.join("postmap"),
            sandbox: config.qmqpd_sandbox()?,
            config_directory: config::directory(),
            meta_directory: config
                .as_set("meta_directory")
                .map(|_| config.meta_directory())
                .transpose()?,
        })
    }
}

/// A list that cannot be used. The administrator has to mend it.
#[derive(Debug)]
pub enum Error {
    /// An item with only `!`.
    NoPattern { list: &'static str },
    /// A `/file` that could be opened but not read: a directory, or a file on a broken disk.
    ReadFile { path: String, error: io::Error },
    /// A table in a list that decides how other lists are read.
    TableProblem { list: &'static str, table: String },
    /// A table that cannot be opened, with daemon_table_open_error_is_fatal.
    Table(String),
    /// The last error that a process may log, which has been logged as `fatal`.
    TooManyErrors(log::TooManyErrors),
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoPattern { list } => write!(f, "{list}: no pattern after '!'"),
            Error::ReadFile { path, error } => {
                write!(
                    f,
                    "match_list_parse: read file {path}: {}",
                    log::error_text(error)
                )
            }
            Error::TableProblem { list, table } => {
                write!(f, "{list}: {table}: table lookup problem")
            }
            Error::Table(reason) => f.write_str(reason),
            Error::TooManyErrors(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<log::TooManyErrors> for Error {
    fn from(error: log::TooManyErrors) -> Error {
        Error::TooManyErrors(error)
    }
}

/// The list cannot be evaluated for this client: a table failed, or a pattern in question is malformed.
#[derive(Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// The errors, in the order in which Postfix logs them.
    pub warnings: Vec<String>,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
enum Note {
    Warning(String),
    Error(String),
}
