//! What can be wrong with main.cf, in Postfix's words.
//!
//! Everything here is the administrator's fault, or at least only the administrator can mend it.

use std::fmt::{self, Display};

use nix::errno::Errno;

use crate::log::{self, Shown};

/// How much of the text after a mistake in `$name` syntax is shown.
const SHOWN_TAIL: usize = 20;

/// Why a parameter cannot be used, or main.cf not be read. `Display` is the text that Postfix logs as `fatal:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    fault: Fault,
    warnings: Vec<String>,
}

impl Error {
    pub(super) fn new(fault: Fault, mut warnings: Vec<String>) -> Error {
        warnings.extend(fault.warning().map(str::to_owned));
        Error { fault, warnings }
    }

    /// What is to be logged as warnings before this, in order.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What is to be logged at level `error` before this.
    pub fn preceding_error(&self) -> Option<String> {
        let Fault::Unauthorized { directory, .. } = &self.fault else {
            return None;
        };
        let text = format!("unauthorized configuration directory name: {directory}");
        Some(text)
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl std::error::Error for Error {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::new(fault, Vec::new())
    }
}

/// For a parameter that is checked against another one. What the fault warns of, it brings along.
impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        error.fault
    }
}

/// The offence itself. Names and values are as shown in a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Open {
        path: String,
        reason: String,
    },
    /// The default main.cf, which a set-id process consults about another directory.
    OpenTrusted {
        path: String,
        reason: String,
    },
    Read {
        path: String,
        errno: Errno,
    },
    /// A line of main.cf that is no `name = value`.
    Line {
        path: String,
        line: usize,
        problem: NameValue,
        text: String,
    },
    /// An `-o` argument that is no `name = value`.
    Override {
        argument: String,
        problem: NameValue,
    },
    /// The directory is not one that main.cf of the default directory allows to set-id processes.
    Unauthorized {
        directory: String,
        main_cf: String,
    },
    /// A mistake in `$name` syntax, described by the warning.
    Macro {
        warning: String,
    },
    /// A number in a comparison that is too large.
    Conversion {
        digits: String,
    },
    Number {
        name: &'static str,
        value: String,
    },
    NumberBelow {
        name: &'static str,
        value: i64,
        min: i64,
    },
    NumberAbove {
        name: &'static str,
        value: i64,
        max: i64,
    },
    ShortText {
        name: &'static str,
        value: String,
        length: usize,
        min: i64,
    },
    LongText {
        name: &'static str,
        value: String,
        length: usize,
        max: i64,
    },
    Boolean {
        name: &'static str,
        value: String,
    },
    Time {
        name: &'static str,
        value: String,
    },
    TimeBelow {
        name: &'static str,
        value: i64,
        min: i64,
    },
    TimeAbove {
        name: &'static str,
        value: i64,
        max: i64,
    },
    /// A word that is not among those of a keyword list. `what` is the parameter's name, or what Postfix says for it.
    Keyword {
        what: &'static str,
        value: String,
        list: String,
    },
    /// mynetworks_style names several styles, or none.
    OneStyle {
        value: String,
    },
    NoProtocols {
        value: String,
    },
    Level {
        value: String,
    },
    /// A parameter whose value means nothing on this machine, or contradicts another.
    InFile {
        main_cf: String,
        problem: String,
    },
    /// As `InFile`, with what exactly is wrong with the host name as a warning.
    Hostname {
        main_cf: String,
        name: &'static str,
        value: String,
        warning: String,
    },
    /// The kernel's name for this machine is no host name.
    OwnHostname {
        warning: String,
    },
    RelayIsSelf {
        name: String,
    },
    OriginList {
        value: String,
    },
    OriginFile {
        path: String,
        reason: String,
    },
    OriginFileLong {
        path: String,
    },
    OriginFileEmpty {
        path: String,
    },
    MaillogFile {
        value: String,
    },
    Interfaces {
        errno: Errno,
    },
    NoInterfaces,
    InterfaceName {
        name: String,
    },
    InterfaceNotLocal {
        address: String,
    },
}

/// How a `name = value` is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameValue {
    NoEquals,
    NoName,
}

impl Display for NameValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameValue::NoEquals => "missing '=' after attribute name",
            NameValue::NoName => "missing attribute name",
        })
    }
}

impl Fault {
    /// The warning that Postfix logs before the fatal message, where that alone does not say what is wrong.
    fn warning(&self) -> Option<&str> {
        if let Fault::Macro { warning }
        | Fault::Hostname { warning, .. }
        | Fault::OwnHostname { warning } = self
        {
            return Some(warning);
        }
        None
    }
}

impl Display for Fault {
    #[rustfmt::skip]
    #[allow(clippy::too_many_lines, reason = "one line for each message")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Open { path, reason } => write!(f, "open {path}: {reason}"),
            Fault::OpenTrusted { path, reason } => write!(f, "open file {path}: {reason}"),
            Fault::Read { path, errno } => write!(f, "read {path}: {}", log::errno_text(*errno)),
            Fault::Line { path, line, problem, text } =>
                write!(f, "{path}, line {line}: {problem}: \"{text}\""),
            Fault::Override { argument, problem } =>
                write!(f, "invalid \"-o {argument}\" option value: {problem}"),
            Fault::Unauthorized { directory, main_cf } =>
                write!(f, "specify \"alternate_config_directories = {directory}\" or \
                    \"multi_instance_directories = {directory}\" in {main_cf}"),
            Fault::Macro { .. } => f.write_str("dictionary mail_dict: macro processing error"),
            Fault::Conversion { digits } => write!(f, "mac_exp_eval: bad conversion: {digits}"),
            Fault::Number { name, value } =>
                write!(f, "bad numerical configuration: {name} = {value}"),
            Fault::NumberBelow { name, value, min } =>
                write!(f, "invalid {name} parameter value {value} < {min}"),
            Fault::NumberAbove { name, value, max } =>
                write!(f, "invalid {name} parameter value {value} > {max}"),
            Fault::ShortText { name, value, length, min } =>
                write!(f, "bad string length {length} < {min}: {name} = {value}"),
            Fault::LongText { name, value, length, max } =>
                write!(f, "bad string length {length} > {max}: {name} = {value}"),
            Fault::Boolean { name, value } =>
                write!(f, "bad boolean configuration: {name} = {value}"),
            Fault::Time { name, value } =>
                write!(f, "parameter {name}: bad time value or unit: {value}"),
            Fault::TimeBelow { name, value, min } => write!(f, "invalid {name}: {value} (min {min})"),
            Fault::TimeAbove { name, value, max } => write!(f, "invalid {name}: {value} (max {max})"),
            Fault::Keyword { what, value, list } =>
                write!(f, "unknown {what} value \"{value}\" in \"{list}\""),
            Fault::OneStyle { value } =>
                write!(f, "bad mynetworks_style value: {value}; specify exactly one value"),
            Fault::NoProtocols { value } =>
                write!(f, "all network protocols are disabled (inet_protocols = {value})"),
            Fault::Level { value } => write!(f, "malformed compatibility level syntax: \"{value}\""),
            Fault::InFile { main_cf, problem } => write!(f, "file {main_cf}: {problem}"),
            Fault::Hostname { main_cf, name, value, .. } =>
                write!(f, "file {main_cf}: parameter {name}: bad parameter value: {value}"),
            Fault::OwnHostname { .. } => f.write_str("unable to use my own hostname"),
            Fault::RelayIsSelf { name } =>
                write!(f, "myhostname and relayhost parameter settings must not be identical: {name}"),
            Fault::OriginList { value } =>
                write!(f, "myorigin parameter setting must not contain multiple values: {value}"),
            Fault::OriginFile { path, reason } => write!(f, "{path}: cannot open file: {reason}"),
            Fault::OriginFileLong { path } => write!(f, "myorigin file {path}: the first line is too long"),
            Fault::OriginFileEmpty { path } => write!(f, "myorigin file {path} is empty"),
            Fault::MaillogFile { value } =>
                write!(f, "maillog_file value '{value}' does not match any prefix in maillog_file_prefixes"),
            Fault::Interfaces { errno } => write!(f, "getifaddrs: {}", log::errno_text(*errno)),
            Fault::NoInterfaces => f.write_str("could not find any active network interfaces"),
            Fault::InterfaceName { name } =>
                write!(f, "config variable inet_interfaces: host not found: {name}"),
            Fault::InterfaceNotLocal { address } =>
                write!(f, "parameter inet_interfaces: no local interface found for {address}"),
        }
    }
}

/// The errno of an I/O error; the standard library makes up errors without one only where no system call failed.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// A mistake in `$name` syntax.
pub(super) fn bad(warning: String) -> Fault {
    Fault::Macro { warning }
}

/// `WHAT at: "...BEFORE>>>AFTER"`.
pub(super) fn syntax(what: &str, before: &[u8], after: &[u8]) -> Fault {
    let tail = after.get(..SHOWN_TAIL).unwrap_or(after);
    let (before, tail) = (Shown(before), Shown(tail));
    bad(format!("{what} at: \"...{before}>>>{tail}\""))
}
