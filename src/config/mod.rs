//! main.cf: its parameters and their values.
//!
//! Loading only reads the file. A parameter is expanded and checked when it is asked for, so that an unused parameter
//! may be wrong. Warnings are collected for the caller, and an error has Postfix's text. Follows
//! `tests/spec/main-cf.md`, sections 1 to 6, and postconf(5). The use of a parameter, and the log, are left to the rooms
//! above.
#![forbid(unsafe_code)]

mod error;
mod expand;
mod file;
mod hostname;
mod installed;
mod key_index;
mod keywords;
mod kinds;
pub mod lines;
pub mod main_cf;
mod mynetworks;
mod owner;
mod params;
mod place;
mod relation;
mod table;
mod trust;
mod watch;

#[cfg(test)]
pub mod tests;

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kinds::Kind;
use main_cf::MainCf;

use crate::log::Shown;

pub use error::Error;
pub use file::{open_file, read_file};
pub use {
    hostname::valid_hostname,
    installed::default_meta_directory,
    key_index::KeyIndex,
    keywords::{Protocols, ProxyProtocol, QueueMethod, ReceiveOverrides},
    main_cf::read_settled,
    owner::Owner,
    params::{DefaultValue, Param},
    place::Place,
    table::TABLE,
    watch::Watch,
};

/// The default directory of main.cf.
pub const DEFAULT_DIRECTORY: &str = "/etc/postfix";

/// The directory of main.cf: the environment's `MAIL_CONFIG`, even if that is empty.
pub fn directory() -> PathBuf {
    std::env::var_os("MAIL_CONFIG").map_or_else(|| DEFAULT_DIRECTORY.into(), PathBuf::from)
}

/// The file's name in messages, before it has been read.
pub fn main_cf_path() -> String {
    main_cf_in(&directory()).to_string_lossy().into_owned()
}

fn main_cf_in(directory: &Path) -> PathBuf {
    // Not `join`: an empty directory means /main.cf.
    let mut path = OsString::from(directory);
    path.push("/main.cf");
    path.into()
}

/// The names of this process, for `$process_name` and `$service_name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The last part of the name with which the program was started.
    pub process: String,
    /// The service's name in master.cf (`-n`), by default the process's name.
    pub service: String,
}

/// One `-o name=value`, which replaces the value in main.cf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Override {
    /// Splits the argument of `-o`.
    pub fn parse(argument: &[u8]) -> Result<Override, Error> {
        let (name, value) = main_cf::split(argument).map_err(|problem| {
            let argument = Shown(argument);
            Error::new(format!("invalid \"-o {argument}\" option value: {problem}"))
        })?;
        Ok(Override::new(name, value))
    }

    /// For options that are another way to set a parameter.
    pub fn new(name: &[u8], value: &[u8]) -> Override {
        Override {
            name: name.to_vec(),
            value: value.to_vec(),
        }
    }
}

/// main.cf and its overrides.
#[derive(Debug)]
pub struct Config {
    directory: PathBuf,
    names: Names,
    main_cf: MainCf,
    /// What takes the place of what main.cf sets, the last of each name.
    overrides: Vec<Override>,
    /// Which file was read, if one was.
    stamp: Option<main_cf::Stamp>,
    warnings: RefCell<Warnings>,
    progress: expand::Progress,
    /// The kernel's name for this machine, after it was asked for.
    kernel_name: OnceCell<Vec<u8>>,
}

/// Warnings, each of which is returned once.
#[derive(Debug, Default)]
struct Warnings {
    all: Vec<String>,
    taken: usize,
}

impl Config {
    /// Reads main.cf in `directory` and puts the `overrides` in place.
    pub fn load(directory: &Path, overrides: Vec<Override>, names: Names) -> Result<Config, Error> {
        trust::check(directory)?;
        let (bytes, stamp) = main_cf::contents(&main_cf_in(directory))?;
        let config = Config::parse(directory, bytes, overrides, names)?;
        Ok(Config { stamp, ..config })
    }

    /// The same, with `bytes` for what main.cf in `directory` holds.
    pub fn parse(
        directory: &Path,
        bytes: Vec<u8>,
        overrides: Vec<Override>,
        names: Names,
    ) -> Result<Config, Error> {
        let mut warnings = Vec::new();
        let path = main_cf_in(directory);
        let parsed = MainCf::parse(&path.to_string_lossy(), bytes, &mut |warning| {
            warnings.push(warning);
        });
        let main_cf = match parsed {
            Ok(main_cf) => main_cf,
            Err(error) => return Err(error.after_warnings(warnings)),
        };
        Ok(Config {
            directory: directory.to_owned(),
            names,
            main_cf,
            overrides,
            stamp: None,
            warnings: RefCell::new(Warnings {
                all: warnings,
                taken: 0,
            }),
            progress: expand::Progress::default(),
            kernel_name: OnceCell::new(),
        })
    }

    /// The warnings since the last call, in order. The caller logs them, before an error if there is one.
    pub fn take_warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.borrow_mut();
        let new = warnings.all.get(warnings.taken..).unwrap_or_default();
        let new = new.to_vec();
        warnings.taken = warnings.all.len();
        new
    }

    fn warn(&self, warning: String) {
        let all = &mut self.warnings.borrow_mut().all;
        if !all.contains(&warning) {
            all.push(warning);
        }
    }

    /// The text to which main.cf or `-o` sets the name, known or unknown.
    pub fn as_set(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.set(name.as_bytes())
    }

    fn set(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        let mut overrides = self.overrides.iter().rev();
        match overrides.find(|set| set.name == name) {
            Some(set) => Some(Cow::Borrowed(&set.value)),
            None => self.main_cf.get(name),
        }
    }

    /// The names that main.cf or `-o` sets, known or not, in order.
    pub fn names_set(&self) -> Vec<&[u8]> {
        let overrides = self.overrides.iter().map(|set| set.name.as_slice());
        let mut names: Vec<&[u8]> = self.main_cf.names().chain(overrides).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// A parameter's value, expanded but not checked, if it can be expanded.
    pub fn expanded(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.value(position(name.as_bytes())?).ok()
    }

    /// The default of a parameter, in the form of [`Config::expanded`].
    pub fn expanded_default(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.default_value(position(name.as_bytes())?).ok()
    }

    /// The file's name in messages.
    pub fn main_cf(&self) -> String {
        main_cf_in(&self.directory).to_string_lossy().into_owned()
    }

    /// An error in main.cf that other parameters or the machine show.
    pub fn in_file(&self, problem: fmt::Arguments<'_>) -> Error {
        Error::new(format!("file {}: {problem}", self.main_cf()))
    }

    fn evaluate<K: Kind>(&self, position: usize) -> Result<K::Value, Error> {
        let param = &TABLE[position];
        let value = self.value(position).map(Cow::into_owned);
        value
            .and_then(|value| K::parse(self, param, value))
            .map_err(|error| error.about(param.name))
    }

    /// A parameter's value, expanded but not checked.
    fn value(&self, position: usize) -> Result<Cow<'_, [u8]>, Error> {
        let param = &TABLE[position];
        match self.set(param.name.as_bytes()) {
            Some(value) if !param.is_fixed() => self.expand(value, position),
            _ => self.default_value(position),
        }
    }

    /// The value that main.cf or `-o` gives to the parameter `name`, for the computation of the parameter `reader`.
    ///
    /// It can refer to the same names as a value of `reader`: in `mydomain = $myhostname` the reference is unknown
    /// while the default of myhostname is computed.
    fn given(&self, name: &[u8], reader: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some(value) = self.set(name) else {
            return Ok(None);
        };
        let position = position(reader).unwrap_or(TABLE.len());
        Ok(Some(self.expand(value, position)?.into_owned()))
    }

    fn default_value(&self, position: usize) -> Result<Cow<'_, [u8]>, Error> {
        let param = &TABLE[position];
        match param.default {
            DefaultValue::Text(text) => self.expand(Cow::Borrowed(text.as_bytes()), position),
            DefaultValue::Computed(compute) | DefaultValue::Fixed(compute) => {
                compute(self, param).map(Cow::Owned)
            }
        }
    }

    fn expand<'a>(&'a self, value: Cow<'a, [u8]>, position: usize) -> Result<Cow<'a, [u8]>, Error> {
        expand::expand(value, &self.progress, &|name| self.lookup(name, position))
    }

    /// The value of `$name` in the parameter at `position`.
    ///
    /// Postfix's daemons load parameters in order, and a reference to a default works only after it has been loaded. So
    /// a later parameter is unknown here as it is there; values in main.cf are always known.
    fn lookup(&self, name: &[u8], position: usize) -> Result<Option<Cow<'_, [u8]>>, Error> {
        let set = self.set(name);
        let known = self::position(name);
        if let Some(value) = set.filter(|_| known.is_none_or(|p| !TABLE[p].is_fixed())) {
            return Ok(Some(value));
        }
        known
            .filter(|&known| known < position)
            .map(|known| self.default_value(known))
            .transpose()
    }
}

impl Param {
    fn is_fixed(&self) -> bool {
        matches!(self.default, DefaultValue::Fixed(_))
    }
}

fn position(name: &[u8]) -> Option<usize> {
    TABLE.iter().position(|param| param.name.as_bytes() == name)
}

// The values of parameters that depend on the process.

fn process_name(config: &Config, _: &Param) -> Result<Vec<u8>, Error> {
    Ok(config.names.process.clone().into_bytes())
}

fn service_name(config: &Config, _: &Param) -> Result<Vec<u8>, Error> {
    Ok(config.names.service.clone().into_bytes())
}

fn process_id(_: &Config, _: &Param) -> Result<Vec<u8>, Error> {
    Ok(std::process::id().to_string().into_bytes())
}

fn config_directory(config: &Config, _: &Param) -> Result<Vec<u8>, Error> {
    Ok(config.directory.as_os_str().as_bytes().to_vec())
}
