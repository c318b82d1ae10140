//! Parameters whose values are words out of a fixed list.
//!
//! Words are separated by commas and whitespace, and upper and lower case differ. Authority: postconf(5), syslog(3).

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

/// Looks the words of `list` up in `known`, and hands what they stand for to `found`.
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

/// What receive_override_options takes away from cleanup's work on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiveOverrides {
    /// Means something to smtpd(8) alone.
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

/// Whether smtputf8_autodetect_classes has mail looked at for UTF-8 that comes by QMQP.
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

/// The address families of inet_protocols; one of them at least.
///
/// Postfix opens a socket of each family to see whether the kernel has it. Here nobody asks: a client that has
/// connected, or an address that an interface has, proves its family (`tests/spec/differences.md`, 32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    pub ipv4: bool,
    pub ipv6: bool,
}

/// As it is written in main.cf.
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

/// Where qmqpd_queue_method sends messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueMethod {
    /// Through Postfix's cleanup(8).
    Cleanup,
    /// Into a queue file of our own.
    File,
    /// To this program, which is qmail-queue or takes its place.
    Qmail(PathBuf),
}

/// Where qmail has its qmail-queue.
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

/// By what a proxy in front of the program says who the client is.
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

/// How much around this machine's own addresses `$mynetworks` covers where nobody has set it.
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
