//! Where the Postfix that is installed is older than the one we follow.
//!
//! We write dates, lists and messages as 3.12 does. This is the one table of what older versions do otherwise; every
//! comparison with Postfix goes through it. What cannot be told in a line has a dialogue that cites
//! `tests/spec/differences.md`, 24.

use std::net::IpAddr;
use std::process::Command;
use std::sync::OnceLock;

use super::instance::Instance;

/// One thing that changed.
struct Change {
    what: &'static str,
    /// The first version that does as we do.
    since: (u32, u32),
    /// The new form of a line of the old form; nothing if the line is not concerned.
    renew: fn(&[u8]) -> Option<Vec<u8>>,
}

/// Everything that changed.
const CHANGES: [Change; 3] = [
    Change {
        what: "the day of the month in a Received: header has two digits",
        since: (3, 9),
        renew: two_digit_day,
    },
    Change {
        what: "name and address no longer change places in a warning",
        since: (3, 12),
        renew: name_first,
    },
    Change {
        what: "the warning of a comment in a list has new words",
        since: (3, 12),
        renew: comment_in_list,
    },
];

/// A line of Postfix's, a record or a log line, as the version that we follow writes it.
pub fn renew(line: &[u8]) -> Vec<u8> {
    let mut line = line.to_vec();
    for change in CHANGES.iter().filter(|change| installed() < change.since) {
        if let Some(new) = (change.renew)(&line) {
            line = new;
        }
    }
    line
}

/// The version of the Postfix on this machine.
pub fn installed() -> (u32, u32) {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    *VERSION.get_or_init(ask_postconf)
}

fn ask_postconf() -> (u32, u32) {
    let instance = Instance::new(&[]);
    let mut postconf = Command::new("postconf");
    let output = postconf
        .args(["-dh", "mail_version"])
        .env("MAIL_CONFIG", instance.config_directory())
        .output()
        .unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    let mut numbers = version
        .trim()
        .split('.')
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// `; Sun,  1 Nov` becomes `; Sun, 01 Nov`.
fn two_digit_day(line: &[u8]) -> Option<Vec<u8>> {
    let at = line
        .windows(8)
        .rposition(|part| part.starts_with(b"; ") && part.ends_with(b",  "))?;
    let mut new = line.to_vec();
    new[at + 7] = b'0';
    Some(new)
}

/// `hostname 192.0.2.1 does not resolve to address a.example` names them the wrong way round.
fn name_first(line: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line).ok()?;
    let (start, rest) = text.split_once("warning: hostname ")?;
    let (address, name) = rest.split_once(" does not resolve to address ")?;
    address.parse::<IpAddr>().ok()?;
    Some(
        format!("{start}warning: hostname {name} does not resolve to address {address}")
            .into_bytes(),
    )
}

/// `comment at end of line is not supported: #WORD REST`; of REST only twenty bytes are still shown.
fn comment_in_list(line: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line).ok()?;
    let (start, comment) = text.split_once(": comment at end of line is not supported: ")?;
    let (word, rest) = comment.split_once(' ')?;
    let shown: String = rest.chars().take(20).collect();
    let new = format!("{start}: #comment after other text is not allowed: {word} {shown}...");
    Some(new.into_bytes())
}
