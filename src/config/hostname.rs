//! The names of this machine: myhostname, mydomain, and the parameters that depend on them.
//!
//! No name is looked up. Follows `tests/spec/main-cf.md`, section 7, postconf(5), and RFC 1123 as in Postfix's
//! valid_hostname.

use std::io::Read;

use super::Config;
use super::error::Error;
use super::file::open_file;
use super::kinds::{Kind, Text};
use super::lines::{is_space, trim};
use super::params::Param;
use crate::log::{Shown, error_text};

/// The longest host name, and the longest part of one between dots.
const NAME_LIMIT: usize = 255;
const LABEL_LIMIT: usize = 63;

/// The longest first line of a file that names myorigin, in bytes; the rest of the file is not read.
pub(super) const ORIGIN_LIMIT: usize = 4096;

/// The length of a bad name that is shown.
const SHOWN_NAME: usize = 100;

/// The domain of a machine whose name has no dot.
const LOCALDOMAIN: &[u8] = b"localdomain";

/// The default of myhostname: the kernel's name for this machine, with a domain.
pub(super) fn myhostname(config: &Config, param: &Param) -> Result<Vec<u8>, Error> {
    let name = config.kernel_name.get_or_init(|| {
        let name = nix::unistd::gethostname().unwrap_or_default();
        name.into_encoded_bytes()
    });
    let mut name = name.clone();
    valid_hostname(&name)
        .map_err(|warning| Error::new("unable to use my own hostname").after_warnings([warning]))?;
    if !name.contains(&b'.') {
        let domain = config.given(b"mydomain", param.name.as_bytes())?;
        name.push(b'.');
        name.extend_from_slice(domain.as_deref().unwrap_or(LOCALDOMAIN));
    }
    checked(config, param, name)
}

/// The default of mydomain: the text after the first dot of myhostname.
pub(super) fn mydomain(config: &Config, param: &Param) -> Result<Vec<u8>, Error> {
    let name = config.myhostname()?;
    let domain = name.split_once('.').map(|(_, domain)| domain.as_bytes());
    let domain = domain.unwrap_or(LOCALDOMAIN).to_vec();
    checked(config, param, domain)
}

/// The default of a parameter that is a host name. An error in it is an error of every value that refers to it.
fn checked(config: &Config, param: &Param, default: Vec<u8>) -> Result<Vec<u8>, Error> {
    Hostname::parse(config, param, default.clone())?;
    Ok(default)
}

/// Checks a host name. The error is the text of Postfix's warning.
pub fn valid_hostname(name: &[u8]) -> Result<(), String> {
    let shown = Shown(name.get(..SHOWN_NAME).unwrap_or(name));
    if name.is_empty() {
        return Err("valid_hostname: empty hostname".to_owned());
    }
    let mut label = 0_usize;
    for (at, &b) in name.iter().enumerate() {
        let next = name.get(at + 1).copied();
        match b {
            b'.' if label == 0 || next.is_none() => {
                return Err(format!("valid_hostname: misplaced delimiter: {shown}"));
            }
            b'.' => label = 0,
            b'-' if label == 0 || next.is_none_or(|b| b == b'.') => {
                return Err(format!("valid_hostname: misplaced hyphen: {shown}"));
            }
            b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => label += 1,
            _ => {
                return Err(format!(
                    "valid_hostname: invalid character {b}(decimal): {shown}"
                ));
            }
        }
        if label > LABEL_LIMIT {
            return Err(format!("valid_hostname: hostname label too long: {shown}"));
        }
    }
    if name.iter().all(|&b| b == b'.' || b.is_ascii_digit()) {
        return Err(format!("valid_hostname: numeric hostname: {shown}"));
    }
    if name.len() > NAME_LIMIT {
        let length = name.len();
        return Err(format!(
            "valid_hostname: bad length {length} for {shown}..."
        ));
    }
    Ok(())
}

/// A host name.
pub enum Hostname {}

impl Kind for Hostname {
    type Value = String;
    const NAME: &'static str = "host name";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<String, Error> {
        let text = Text::parse(config, param, value.clone())?;
        valid_hostname(&value).map_err(|warning| {
            let (name, value) = (param.name, Shown(&value));
            config
                .in_file(format_args!(
                    "parameter {name}: bad parameter value: {value}"
                ))
                .after_warnings([warning])
        })?;
        Ok(text)
    }
}

/// A relay host. This machine's own name would be a loop.
pub enum Relayhost {}

impl Kind for Relayhost {
    type Value = String;
    const NAME: &'static str = "text";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<String, Error> {
        let relayhost = Text::parse(config, param, value)?;
        let name = config.myhostname()?;
        if relayhost.eq_ignore_ascii_case(&name) {
            return Err(Error::new(format!(
                "myhostname and relayhost parameter settings must not be identical: {name}"
            )));
        }
        Ok(relayhost)
    }
}

/// The domain of local senders. On Debian it may be the name of a file, whose first line has the domain.
pub enum Origin {}

impl Kind for Origin {
    type Value = String;
    const NAME: &'static str = "domain, or file that names it";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<String, Error> {
        let mut origin = Text::parse(config, param, value)?;
        if origin.starts_with('/') {
            origin = origin_in_file(&origin)?;
        }
        if origin.bytes().any(|b| b == b',' || is_space(b)) {
            return Err(Error::new(format!(
                "myorigin parameter setting must not contain multiple values: {origin}"
            )));
        }
        Ok(origin)
    }
}

fn origin_in_file(path: &str) -> Result<String, Error> {
    let mut file = Vec::new();
    let outcome = open_file(path).and_then(|opened| {
        let limit = ORIGIN_LIMIT.saturating_add(1);
        opened.take(limit as u64).read_to_end(&mut file)
    });
    if let Err(error) = outcome {
        let reason = error_text(&error);
        return Err(Error::new(format!("{path}: cannot open file: {reason}")));
    }
    let first = file.split(|&b| b == b'\n').next().unwrap_or_default();
    if first.len() > ORIGIN_LIMIT {
        return Err(Error::new(format!(
            "myorigin file {path}: the first line is too long"
        )));
    }
    let first = trim(first);
    if first.is_empty() {
        return Err(Error::new(format!("myorigin file {path} is empty")));
    }
    Ok(String::from_utf8_lossy(first).into_owned())
}
