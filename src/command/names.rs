//! Finds names in main.cf that are likely misspelt; for `--check`.
//!
//! Postfix accepts any name, and lets values refer to it. So a name is reported only if it is no parameter, no value
//! uses it, and it is nearly a parameter of this program; a reference only if no line sets its name. A serving process
//! reports neither, as Postfix. Follows postconf(1), which warns of both.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use crate::config::{Config, TABLE, lines, read_file};
use crate::log::Shown;

/// The parameters that `postconf -d` of Postfix 3.5, 3.7, 3.10 and 3.11 lists, and older names in their defaults; one
/// on each line.
const POSTFIX: &str = include_str!("postfix-parameters.txt");

/// Parameters whose `$name`s Postfix replaces when mail is delivered or refused: no line sets these names.
const NOT_EXPANDED: [&str; 9] = [
    "command_execution_directory",
    "default_rbl_reply",
    "forward_path",
    "luser_relay",
    "mailbox_command",
    "postscreen_expansion_filter",
    "postscreen_reject_footer",
    "smtpd_expansion_filter",
    "smtpd_reject_footer",
];

/// The ends of parameters that begin with the name of a service of master.cf.
const OF_A_SERVICE: [&str; 7] = [
    "_concurrency_failed_cohort_limit",
    "_concurrency_limit",
    "_initial_destination_concurrency",
    "_rate_delay",
    "_recipient_limit",
    "_recipient_refill_limit",
    "_time_limit",
];

/// The number of letters that a misspelt name may have too many, too few, or exchanged.
const SLIPS: usize = 2;

/// A name that is likely misspelt.
#[derive(Debug, PartialEq, Eq)]
pub struct Slip {
    /// The parameter whose value has the name, or the name itself if a line sets it.
    pub parameter: String,
    pub name: String,
    /// The parameter that is likely meant.
    pub meant: Option<String>,
}

/// The names that are set, and that no program and no value uses.
pub fn unused(config: &Config) -> Vec<Slip> {
    let used = used(config);
    let slip = |name: &[u8]| {
        if is_known(name) || used.contains(name) {
            return None;
        }
        let meant = nearest(name, TABLE.iter().map(|param| param.name.as_bytes()));
        let name = Shown(name).to_string();
        (meant.is_some() || name.starts_with("qmqpd_")).then(|| Slip {
            parameter: name.clone(),
            name,
            meant,
        })
    };
    config.names_set().into_iter().filter_map(slip).collect()
}

/// The names that values refer to, and that no line sets.
pub fn undefined(config: &Config) -> Vec<Slip> {
    let used = used(config);
    let set: BTreeSet<&[u8]> = config.names_set().into_iter().collect();
    let is_read = |name: &[u8]| {
        (is_known(name) || used.contains(name))
            && !NOT_EXPANDED.iter().any(|raw| raw.as_bytes() == name)
    };
    let mut slips = Vec::new();
    for (parameter, value) in values(config).filter(|(name, _)| is_read(name)) {
        let names: BTreeSet<&[u8]> = references(&value)
            .into_iter()
            .filter(|reference| !reference.is_conditional)
            .map(|reference| reference.name)
            .filter(|name| !set.contains(name) && !is_known(name) && !is_of_a_service(name))
            .collect();
        let known = || set.iter().copied().chain(known_names());
        slips.extend(names.into_iter().map(|name| Slip {
            parameter: Shown(parameter).to_string(),
            name: Shown(name).to_string(),
            meant: nearest(name, known()),
        }));
    }
    slips
}

fn known_names<'a>() -> impl Iterator<Item = &'a [u8]> {
    let ours = TABLE.iter().map(|param| param.name.as_bytes());
    ours.chain(POSTFIX.lines().map(str::as_bytes))
}

fn is_known(name: &[u8]) -> bool {
    known_names().any(|known| known == name)
}

fn is_of_a_service(name: &[u8]) -> bool {
    OF_A_SERVICE
        .iter()
        .any(|suffix| name.ends_with(suffix.as_bytes()))
}

/// The names and values that main.cf and `-o` set.
fn values(config: &Config) -> impl Iterator<Item = (&[u8], Cow<'_, [u8]>)> {
    config.names_set().into_iter().filter_map(|name| {
        let value = config.as_set(std::str::from_utf8(name).ok()?)?;
        Some((name, value))
    })
}

/// The names that values of main.cf and master.cf refer to, and the restriction classes, which are used without a `$`.
fn used(config: &Config) -> BTreeSet<Vec<u8>> {
    let services = Path::new(&config.main_cf()).with_file_name("master.cf");
    let services = read_file(services).unwrap_or_default();
    let classes = config
        .as_set("smtpd_restriction_classes")
        .unwrap_or_default();
    let values = values(config).map(|(_, value)| value);
    let texts: Vec<Cow<'_, [u8]>> = values.chain([services.into()]).collect();
    texts
        .iter()
        .flat_map(|text| references(text))
        .map(|reference| reference.name)
        .chain(lines::items(&classes))
        .map(<[u8]>::to_vec)
        .collect()
}

/// A `$name`, `${name}` or `$(name)`.
#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    name: &'a [u8],
    /// The reference tests whether the name is set: `${name?text}`, `${name:text}`.
    is_conditional: bool,
}

/// The references in a value, nested ones included. Malformed references are skipped; they are reported elsewhere.
fn references(value: &[u8]) -> Vec<Reference<'_>> {
    let mut found = Vec::new();
    let mut rest = value;
    while let Some(dollar) = rest.iter().position(|&b| b == b'$') {
        rest = rest.get(dollar + 1..).unwrap_or_default();
        if let Some(escaped) = rest.strip_prefix(b"$") {
            rest = escaped;
            continue;
        }
        let closing = rest.first().and_then(|b| match b {
            b'(' => Some(b')'),
            b'{' => Some(b'}'),
            _ => None,
        });
        if closing.is_some_and(|closing| !rest.contains(&closing)) {
            continue;
        }
        let open = closing.is_some();
        let start = rest.get(usize::from(open)..).unwrap_or_default();
        let start = trim_start(start);
        let end = start.iter().position(|&b| !is_of_a_name(b));
        let (name, after) = start.split_at(end.unwrap_or(start.len()));
        if name.is_empty() {
            continue;
        }
        let after = trim_start(after);
        found.push(Reference {
            name,
            is_conditional: open && after.first().is_some_and(|b| b"?:".contains(b)),
        });
        rest = after;
    }
    found
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|b| lines::is_space(**b)).count();
    text.get(blanks..).unwrap_or_default()
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The closest known name within [`SLIPS`].
fn nearest<'a>(name: &[u8], known: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let (_, meant) = known
        .map(|known| (distance(name, known), known))
        .filter(|(slips, _)| *slips <= SLIPS)
        .min()?;
    Some(Shown(meant).to_string())
}

/// The number of letters to add, remove, replace or exchange with their neighbours to turn `a` into `b`.
fn distance(a: &[u8], b: &[u8]) -> usize {
    if a.len().abs_diff(b.len()) > SLIPS {
        return SLIPS + 1;
    }
    // Rows of the table of distances: that of this prefix of `a` to each prefix of `b`, and those of the two shorter
    // prefixes of `a`.
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, (&y, pair)) in b.iter().zip(last.windows(2)).enumerate() {
            let &[diagonal, above] = pair else { break };
            let left = row.last().copied().unwrap_or(above);
            let mut least = (diagonal + usize::from(x != y))
                .min(above + 1)
                .min(left + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(&y) && b.get(j - 1) == Some(&x);
            if let (true, Some(&two_shorter)) = (swapped, before.get(j.wrapping_sub(1))) {
                least = least.min(two_shorter + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(b.len())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::config::tests::config;

    fn unused(main_cf: &str) -> Vec<(String, Option<String>)> {
        let slips = super::unused(&config(main_cf)).into_iter();
        slips.map(|slip| (slip.name, slip.meant)).collect()
    }

    fn undefined(main_cf: &str) -> Vec<String> {
        let slips = super::undefined(&config(main_cf)).into_iter();
        let shown = slips.map(
            |Slip {
                 parameter,
                 name,
                 meant,
             }| { format!("{parameter}: {name}, {}", meant.unwrap_or_default()) },
        );
        shown.collect()
    }

    #[test]
    fn a_name_that_is_nearly_a_parameter_is_one_unless_something_uses_it() {
        assert_eq!(
            unused("queue_directroy = /q\nqmqpd_x = 1\nsmtpd_baner = x\nqueue_direct = /q\n"),
            [
                ("qmqpd_x".to_owned(), None),
                (
                    "queue_directroy".to_owned(),
                    Some("queue_directory".to_owned())
                ),
            ]
        );
        assert_eq!(
            unused("mynetwork = 10.0.0.1\nmynetworks = $mynetwork\n"),
            []
        );
        assert_eq!(
            unused("smtpd_restriction_classes = soft_bouncer, x\nsoft_bouncer = permit\n"),
            []
        );
        assert_eq!(
            unused("lmtp_tls_wrappermode = yes\nvirtual_alias_maps =\n"),
            []
        );
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_found_and_no_other() {
        assert_eq!(
            undefined(
                "mydestination = $myhostnmae, ${nowhere} $(mydomain) $x\nx = 1\ny = $nowhere\n"
            ),
            [
                "mydestination: myhostnmae, myhostname",
                "mydestination: nowhere, "
            ]
        );
        assert_eq!(
            undefined("relayhost = ${a?b} ${c:{d}} $$e $smtpd_banner ${{$f} == {1} ? {x}}\n"),
            ["relayhost: f, "]
        );
        assert_eq!(
            undefined("mailbox_command = procmail -a $EXTENSION\n"),
            [""; 0]
        );
        assert_eq!(
            undefined("mynetworks = $dovecot_destination_recipient_limit\n"),
            [""; 0]
        );
    }

    #[test]
    fn slips_are_counted_as_people_make_them() {
        for (a, b, slips) in [
            ("limit", "limit", 0),
            ("limt", "limit", 1),
            ("limiit", "limit", 1),
            ("limut", "limit", 1),
            ("limti", "limit", 1),
            ("ilmti", "limit", 2),
            ("filter", "fliters", 2),
            ("mail_name", "mail_owner", 4),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), slips, "{a} {b}");
        }
    }

    #[test]
    fn the_parameters_of_postfix_are_all_there() {
        assert_eq!(POSTFIX.lines().count(), 887);
        assert!(POSTFIX.lines().is_sorted());
        let Ok(output) = Command::new("postconf")
            .args(["-c", "/dev/null", "-d"])
            .output()
        else {
            return crate::skip::skip("the_parameters_of_postfix_are_all_there", "no postconf");
        };
        let defaults = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = defaults.lines().filter_map(|line| line.split(" =").next());
        let missing: Vec<&str> = names.filter(|name| !is_known(name.as_bytes())).collect();
        assert_eq!(missing, [""; 0]);
    }
}
