//! The kinds of values of parameters, and their checks.
//!
//! Follows `tests/spec/main-cf.md`, section 5, and postconf(5); the texts of errors are those of Postfix 3.7's daemons.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use super::error::Error;
use super::params::Param;
use super::relation::{leading_number, level, malformed_level};
use super::{Config, lines};
use crate::log::Shown;

/// Turns a parameter's expanded value into the value for the program.
pub trait Kind {
    type Value;

    /// The kind's name in the manual.
    const NAME: &'static str;

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<Self::Value, Error>;
}

/// Text for messages, or for a list. Bytes that are not UTF-8 are replaced.
pub enum Text {}

impl Kind for Text {
    type Value = String;
    const NAME: &'static str = "text";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<String, Error> {
        let bytes = Bytes::parse(config, param, value)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }
}

/// Text that is used byte for byte. Its bounds are lengths.
pub enum Bytes {}

impl Kind for Bytes {
    type Value = Vec<u8>;
    const NAME: &'static str = "text";

    fn parse(_: &Config, param: &Param, value: Vec<u8>) -> Result<Vec<u8>, Error> {
        let (name, length) = (param.name, value.len());
        let signed = i64::try_from(length).unwrap_or(i64::MAX);
        let bound = if signed < param.min {
            format!("< {}", param.min)
        } else if param.max > 0 && signed > param.max {
            format!("> {}", param.max)
        } else {
            return Ok(value);
        };
        let value = Shown(&value);
        let text = format!("bad string length {length} {bound}: {name} = {value}");
        Err(Error::new(text))
    }
}

/// The name of a file or directory.
pub enum Path {}

impl Kind for Path {
    type Value = PathBuf;
    const NAME: &'static str = "path";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<PathBuf, Error> {
        let bytes = Bytes::parse(config, param, value)?;
        Ok(PathBuf::from(OsString::from_vec(bytes)))
    }
}

/// A number that fits an `int`. A bound of 0 is no bound.
pub enum Int {}

impl Kind for Int {
    type Value = i32;
    const NAME: &'static str = "number";

    fn parse(_: &Config, param: &Param, value: Vec<u8>) -> Result<i32, Error> {
        let number = whole_number(param, &value)?;
        let Ok(int) = i32::try_from(number) else {
            return Err(bad_number(param, &value));
        };
        in_range(param, number).map(|()| int)
    }
}

/// A number that fits a `long`. A bound of 0 is no bound.
pub enum Long {}

impl Kind for Long {
    type Value = i64;
    const NAME: &'static str = "number";

    fn parse(_: &Config, param: &Param, value: Vec<u8>) -> Result<i64, Error> {
        let number = whole_number(param, &value)?;
        in_range(param, number).map(|()| number)
    }
}

/// A number of things. A negative number counts as 0.
pub enum Count {}

impl Kind for Count {
    type Value = u32;
    const NAME: &'static str = "number";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<u32, Error> {
        Int::parse(config, param, value).map(|number| number.max(0).unsigned_abs())
    }
}

/// A limit of bytes. 0 or less is no limit.
pub enum Limit {}

impl Kind for Limit {
    type Value = Option<u64>;
    const NAME: &'static str = "number";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<Option<u64>, Error> {
        let number = Long::parse(config, param, value)?;
        Ok((number > 0).then_some(number.unsigned_abs()))
    }
}

fn whole_number(param: &Param, value: &[u8]) -> Result<i64, Error> {
    match leading_number(value) {
        Some((Some(number), b"")) => Ok(number),
        _ => Err(bad_number(param, value)),
    }
}

fn bad_number(param: &Param, value: &[u8]) -> Error {
    let (name, value) = (param.name, Shown(value));
    Error::new(format!("bad numerical configuration: {name} = {value}"))
}

fn in_range(param: &Param, value: i64) -> Result<(), Error> {
    let &Param { name, min, max, .. } = param;
    let bound = if min != 0 && value < min {
        format!("< {min}")
    } else if max != 0 && value > max {
        format!("> {max}")
    } else {
        return Ok(());
    };
    let text = format!("invalid {name} parameter value {value} {bound}");
    Err(Error::new(text))
}

/// `yes` or `no`.
pub enum Bool {}

impl Kind for Bool {
    type Value = bool;
    const NAME: &'static str = "yes or no";

    fn parse(_: &Config, param: &Param, value: Vec<u8>) -> Result<bool, Error> {
        if value.eq_ignore_ascii_case(b"yes") {
            Ok(true)
        } else if value.eq_ignore_ascii_case(b"no") {
            Ok(false)
        } else {
            let (name, value) = (param.name, Shown(&value));
            let text = format!("bad boolean configuration: {name} = {value}");
            Err(Error::new(text))
        }
    }
}

/// A number and a unit; without a unit, seconds.
pub enum Time {}

impl Kind for Time {
    type Value = Duration;
    const NAME: &'static str = "time";

    fn parse(_: &Config, param: &Param, value: Vec<u8>) -> Result<Duration, Error> {
        let &Param { name, min, max, .. } = param;
        let Some(secs) = seconds(&value) else {
            let value = Shown(&value);
            let text = format!("parameter {name}: bad time value or unit: {value}");
            return Err(Error::new(text));
        };
        let bound = if i64::from(secs) < min {
            format!("min {min}")
        } else if max != 0 && i64::from(secs) > max {
            format!("max {max}")
        } else {
            return Ok(Duration::from_secs(u64::from(secs)));
        };
        Err(Error::new(format!("invalid {name}: {secs} ({bound})")))
    }
}

/// The seconds of a time value. As in Postfix, a unit alone is 0, and text after the unit is ignored.
fn seconds(value: &[u8]) -> Option<u32> {
    let (number, rest) = match leading_number(value) {
        Some((number, rest)) => (number?, rest),
        None => (0, (!value.is_empty()).then_some(value)?),
    };
    let unit = match rest.first() {
        None | Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 24 * 3600,
        Some(b'w') => 7 * 24 * 3600,
        Some(_) => return None,
    };
    let most = i64::from(i32::MAX);
    if unit > 1 && number >= most / unit || number > most {
        return None;
    }
    u32::try_from(number * unit).ok()
}

/// A compatibility level, `major[.minor[.patch]]`.
pub enum Level {}

impl Kind for Level {
    type Value = String;
    const NAME: &'static str = "level";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<String, Error> {
        if level(&value).is_none() {
            return Err(Error::new(malformed_level(&value)));
        }
        Text::parse(config, param, value)
    }
}

/// The characters that may separate the parts of a VERP address, which include those of default_verp_delimiters.
pub enum VerpFilter {}

impl Kind for VerpFilter {
    type Value = Vec<u8>;
    const NAME: &'static str = "text";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<Vec<u8>, Error> {
        let filter = Bytes::parse(config, param, value)?;
        let delimiters = config.default_verp_delimiters()?;
        for (delimiter, which) in delimiters.iter().zip(["first", "second"]) {
            if !filter.contains(delimiter) {
                return Err(config.in_file(format_args!(
                    "parameters default_verp_delimiters and {}: bad {which} VERP delimiter character",
                    param.name
                )));
            }
        }
        Ok(filter)
    }
}

/// The log file of postlogd(8), which must begin with one of maillog_file_prefixes.
pub enum MaillogFile {}

impl Kind for MaillogFile {
    type Value = PathBuf;
    const NAME: &'static str = "path";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<PathBuf, Error> {
        if !value.is_empty() {
            let prefixes = config.maillog_file_prefixes()?;
            if !lines::items(prefixes.as_bytes()).any(|prefix| value.starts_with(prefix)) {
                let value = Shown(&value);
                return Err(Error::new(format!(
                    "maillog_file value '{value}' does not match any prefix in maillog_file_prefixes"
                )));
            }
        }
        Path::parse(config, param, value)
    }
}
