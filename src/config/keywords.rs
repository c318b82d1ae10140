//! Parameters whose values are words from a fixed list.
//!
//! Words are separated by commas and whitespace, and upper and lower case differ. Follows `tests/spec/main-cf.md`,
//! sections 6.2 and 6.3, postconf(5) and syslog(3).

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::Config;
use super::error::Error;
use super::kinds::{Bytes, Kind};
use super::lines;
use super::params::Param;
use crate::log::Shown;

/// Looks the words of `list` up in `known`, and passes their meanings to `found`.
fn words<T: Copy>(
    what: &'static str,
    list: &[u8],
    known: &[(&str, T)],
    mut found: impl FnMut(T),
) -> Result<(), Error> {
    for word in lines::items(list) {
        let Some((_, meaning)) = known.iter().find(|(name, _)| name.as_bytes() == word) else {
            let (word, list) = (Shown(word), Shown(list));
            let text = format!("unknown {what} value \"{word}\" in \"{list}\"");
            return Err(Error::new(text));
        };
        found(*meaning);
    }
    Ok(())
}

/// The steps that receive_override_options makes cleanup omit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiveOverrides {
    /// Has a meaning in smtpd(8) only.
    pub no_unknown_recipient_checks: bool,
    pub no_address_mappings: bool,
    pub no_header_body_checks: bool,
    pub no_milters: bool,
}

impl Kind for ReceiveOverrides {
    type Value = ReceiveOverrides;
    const NAME: &'static str = "keywords";

    fn parse(_: &Config, param: &Param, value: Vec<u8>) -> Result<ReceiveOverrides, Error> {
        type Set = fn(&mut ReceiveOverrides);
        let known: [(&str, Set); 4] = [
            ("no_unknown_recipient_checks", |o| {
                o.no_unknown_recipient_checks = true;
            }),
            ("no_address_mappings", |o| o.no_address_mappings = true),
            ("no_header_body_checks", |o| o.no_header_body_checks = true),
            ("no_milters", |o| o.no_milters = true),
        ];
        let mut overrides = ReceiveOverrides::default();
        words(param.name, &value, &known, |set| set(&mut overrides))?;
        Ok(overrides)
    }
}

/// Whether smtputf8_autodetect_classes includes mail by QMQP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utf8Classes {
    pub qmqpd: bool,
}

impl Kind for Utf8Classes {
    type Value = Utf8Classes;
    const NAME: &'static str = "keywords";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<Utf8Classes, Error> {
        let known = [
            ("sendmail", false),
            ("smtpd", false),
            ("qmqpd", true),
            ("forward", false),
            ("bounce", false),
            ("notify", false),
            ("verify", false),
            ("all", true),
        ];
        let value = Bytes::parse(config, param, value)?;
        let mut qmqpd = false;
        words(param.name, &value, &known, |here| qmqpd |= here)?;
        Ok(Utf8Classes { qmqpd })
    }
}

/// The address families of inet_protocols, at least one.
///
/// Postfix opens a socket of each family to see whether the kernel has it. This program does not: a connected client,
/// or an interface's address, proves its family (`tests/spec/differences.md`, 32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    pub ipv4: bool,
    pub ipv6: bool,
}

/// The form in main.cf.
impl Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.ipv4, self.ipv6) {
            (true, false) => "ipv4",
            (false, true) => "ipv6",
            (true, true) | (false, false) => "all",
        })
    }
}

impl Kind for Protocols {
    type Value = Protocols;
    const NAME: &'static str = "keywords";

    fn parse(_: &Config, param: &Param, value: Vec<u8>) -> Result<Protocols, Error> {
        let known = [
            ("all", (true, true)),
            ("ipv4", (true, false)),
            ("ipv6", (false, true)),
        ];
        let (mut ipv4, mut ipv6) = (false, false);
        words(param.name, &value, &known, |(four, six)| {
            ipv4 |= four;
            ipv6 |= six;
        })?;
        if !ipv4 && !ipv6 {
            let value = Shown(&value);
            return Err(Error::new(format!(
                "all network protocols are disabled (inet_protocols = {value})"
            )));
        }
        Ok(Protocols { ipv4, ipv6 })
    }
}

/// The queue of qmqpd_queue_method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueMethod {
    /// Postfix's cleanup(8).
    Cleanup,
    /// A queue file, written by this program.
    File,
    /// This program, qmail-queue or a replacement of it.
    Qmail(PathBuf),
}

/// qmail's own qmail-queue.
const QMAIL_QUEUE: &str = "/var/qmail/bin/qmail-queue";

impl Kind for QueueMethod {
    type Value = QueueMethod;
    const NAME: &'static str = "keyword";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<QueueMethod, Error> {
        match value.as_slice() {
            b"cleanup" => Ok(QueueMethod::Cleanup),
            b"file" => Ok(QueueMethod::File),
            b"qmail" => Ok(QueueMethod::Qmail(QMAIL_QUEUE.into())),
            [b'q', b'm', b'a', b'i', b'l', b':', program @ ..] if !program.is_empty() => {
                let program = OsString::from_vec(program.to_vec());
                Ok(QueueMethod::Qmail(program.into()))
            }
            _ => Err(config.in_file(format_args!(
                "parameter {}: unknown queue method: {}",
                param.name,
                Shown(&value)
            ))),
        }
    }
}

/// The protocol by which a proxy names the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// There is no proxy.
    None,
    /// A header of HAProxy's PROXY protocol.
    Haproxy,
}

impl Kind for ProxyProtocol {
    type Value = ProxyProtocol;
    const NAME: &'static str = "keyword";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<ProxyProtocol, Error> {
        match value.as_slice() {
            b"" => Ok(ProxyProtocol::None),
            b"haproxy" => Ok(ProxyProtocol::Haproxy),
            _ => Err(config.in_file(format_args!(
                "parameter {}: unknown protocol: {}",
                param.name,
                Shown(&value)
            ))),
        }
    }
}

/// A facility of syslog(3), as the number that a log line starts with (`mail` is 2).
pub enum Facility {}

impl Kind for Facility {
    type Value = u32;
    const NAME: &'static str = "facility";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<u32, Error> {
        let known = [
            ("mail", 2),
            ("auth", 4),
            ("authpriv", 10),
            ("cron", 9),
            ("daemon", 3),
            ("ftp", 11),
            ("kern", 0),
            ("lpr", 6),
            ("news", 7),
            ("syslog", 5),
            ("user", 1),
            ("uucp", 8),
            ("local0", 16),
            ("local1", 17),
            ("local2", 18),
            ("local3", 19),
            ("local4", 20),
            ("local5", 21),
            ("local6", 22),
            ("local7", 23),
        ];
        let value = Bytes::parse(config, param, value)?;
        let facility = known.iter().find(|(name, _)| name.as_bytes() == value);
        facility.map(|&(_, number)| number).ok_or_else(|| {
            let value = Shown(&value);
            config.in_file(format_args!(
                "parameter {}: unrecognized value: {value}",
                param.name
            ))
        })
    }
}

/// The extent of the networks in the default of `$mynetworks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// The whole class A, B or C network.
    Class,
    Subnet,
    Host,
}

impl Kind for Style {
    type Value = Style;
    const NAME: &'static str = "keyword";

    fn parse(config: &Config, param: &Param, value: Vec<u8>) -> Result<Style, Error> {
        let known = [
            ("class", Style::Class),
            ("subnet", Style::Subnet),
            ("host", Style::Host),
        ];
        let value = Bytes::parse(config, param, value)?;
        let mut styles = Vec::new();
        words("mynetworks mask style", &value, &known, |style| {
            if !styles.contains(&style) {
                styles.push(style);
            }
        })?;
        match styles.as_slice() {
            [style] => Ok(*style),
            _ => Err(Error::new(format!(
                "bad mynetworks_style value: {}; specify exactly one value",
                Shown(&value)
            ))),
        }
    }
}
