//! The same main.cf, read by this program and by postconf(1).
//!
//! postconf does not load parameters in order, so that only names are referred to that main.cf sets.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use super::super::params::DefaultValue;
use super::*;
use crate::skip::skip;

/// Runs postconf on a directory. `None`, and the test is skipped, where Postfix is not installed.
fn postconf(directory: &Directory, arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new("postconf");
    // An ordinary user's path need not have it.
    command.env("PATH", "/usr/sbin:/usr/local/sbin:/usr/bin:/bin");
    command.arg("-c").arg(directory.path()).args(arguments);
    match command.output() {
        Ok(output) => Some(output),
        Err(e) => {
            skip("config::tests::postfix", &format!("postconf: {e}"));
            None
        }
    }
}

/// `name = value` lines.
fn settings(output: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(output);
    let setting = |line: &str| {
        let (name, value) = line.split_once(" =").unwrap();
        // postconf drops whitespace at the ends of what it shows.
        (name.to_owned(), value.trim_matches(' ').to_owned())
    };
    text.lines().map(setting).collect()
}

const VERSIONS: &str = include_str!("../../../tests/spec/versions.md");

type Version = (u32, u32);

fn version(text: &str) -> Version {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A default that differs by version (`tests/spec/versions.md`, 20 and following).
struct Row {
    /// The value of this version, if it has the parameter.
    theirs: Option<&'static str>,
    /// This program's value, unless it depends on the installed version.
    ours: Option<&'static str>,
}

/// The rows of the page, as the Postfix of this version has them.
fn rows(installed: Version) -> BTreeMap<&'static str, Row> {
    let (_, section) = VERSIONS.split_once("\n## 2.").unwrap();
    let rows = section.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        cells[0].parse::<u32>().ok()?;
        let text = |cell: &'static str| match cell {
            "-" => None,
            "empty" => Some(""),
            _ => Some(cell.trim_matches('`')),
        };
        let is_newer = installed >= version(cells[1]);
        let row = Row {
            theirs: text(cells[if is_newer { 4 } else { 3 }]),
            ours: text(cells[4]).filter(|_| cells[5] == "newer |"),
        };
        Some((cells[2].trim_matches('`'), row))
    });
    let rows: BTreeMap<_, _> = rows.collect();
    assert!(rows.len() > 10);
    rows
}

/// The version that is installed. `None`, and the test is skipped, where there is none.
fn installed(directory: &Directory) -> Option<Version> {
    let output = postconf(directory, &["-dh", "mail_version"])?;
    Some(version(String::from_utf8(output.stdout).unwrap().trim()))
}

/// Parameters that no Postfix has.
const OURS: &[&str] = &[
    "qmqpd_client_connection_count_limit",
    "qmqpd_client_ipv4_prefix_length",
    "qmqpd_client_ipv6_prefix_length",
    "qmqpd_disconnect_stats",
    "qmqpd_log_stderr",
    "qmqpd_peername_lookup",
    "qmqpd_process_limit",
    "qmqpd_queue_method",
    "qmqpd_sandbox",
    "qmqpd_upstream_proxy_clients",
    "qmqpd_upstream_proxy_protocol",
    "qmqpd_upstream_proxy_timeout",
];

/// Parameters with a value of their own in each version.
const OF_EACH_VERSION: &[&str] = &["mail_release_date", "mail_version"];

#[test]
fn defaults_are_those_of_postfix() {
    let directory = directory_with("");
    let Some(output) = postconf(&directory, &["-d"]) else {
        return;
    };
    let all = settings(&output.stdout);
    let rows = rows(installed(&directory).unwrap());
    let config = directory.load(&[]).unwrap();
    let mut compared = 0;
    for param in TABLE {
        if OURS.contains(&param.name) || OF_EACH_VERSION.contains(&param.name) {
            continue;
        }
        let theirs = all.get(param.name).map(String::as_str);
        if let Some(row) = rows.get(param.name) {
            assert_eq!(theirs, row.theirs, "{}: its row", param.name);
        }
        let row = rows.get(param.name);
        match (&param.default, row) {
            (DefaultValue::Text(ours), Some(row)) => {
                assert_eq!(Some(*ours), row.ours, "{}", param.name)
            }
            (DefaultValue::Text(ours), None) => assert_eq!(theirs, Some(*ours), "{}", param.name),
            (
                DefaultValue::Computed(_),
                Some(Row {
                    theirs: Some(_), ..
                }),
            ) => {
                let ours = config.expanded_default(param.name).unwrap();
                assert_eq!(
                    Some(&*String::from_utf8_lossy(&ours)),
                    theirs,
                    "{}",
                    param.name
                );
            }
            (DefaultValue::Computed(_) | DefaultValue::Fixed(_), _) => continue,
        }
        compared += 1;
    }
    assert!(compared > 120, "{compared}");
}

/// The parameters that Postfix's qmqpd gives a value of its own, in the order in which it does.
fn loaded_by_daemon(directory: &Directory) -> Option<Vec<(String, String)>> {
    let output = postconf(directory, &["-h", "daemon_directory"])?;
    let daemon = Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("qmqpd");
    let queue = format!("queue_directory={}", directory.path().display());
    let output = Command::new(daemon)
        .args(["-S", "-V", "-v", "-v", "-v", "-o", &queue])
        .args(["-o", "qmqpd_error_delay=0"])
        .env("MAIL_CONFIG", directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let updates = said.lines().filter_map(|line| {
        let (name, value) = line.split_once("dict_update: ")?.1.split_once(" = ")?;
        let overridden = ["queue_directory", "qmqpd_error_delay"].contains(&name);
        (!overridden).then(|| (name.to_owned(), value.to_owned()))
    });
    let updates: Vec<_> = updates.collect();
    assert!(updates.len() > 100, "{said}");
    Some(updates)
}

#[test]
fn what_is_computed_is_what_postfix_computes() {
    for main_cf in [
        "",
        "mydomain = example.org\n",
        "mynetworks_style = host\n",
        "mynetworks_style = class\ninet_interfaces = loopback-only\n",
        "inet_protocols = ipv4\ninet_interfaces = 127.0.0.1\n",
        "compatibility_level = 2\nmyhostname = a.b.c.d\n",
    ] {
        let directory = directory_with(main_cf);
        let Some(theirs) = loaded_by_daemon(&directory) else {
            return;
        };
        let config = directory.load(&[]).unwrap();
        for name in [
            "myhostname",
            "mydomain",
            "mynetworks",
            "mydestination",
            "relay_domains",
        ] {
            // What main.cf sets is not among them.
            let Some((_, theirs)) = theirs.iter().find(|(known, _)| known == name) else {
                continue;
            };
            let at = position(name.as_bytes()).unwrap();
            let ours = config.value(at).unwrap();
            assert_eq!(&String::from_utf8_lossy(&ours), theirs, "{main_cf}{name}");
        }
    }
}

#[test]
fn the_table_is_in_the_order_in_which_a_daemon_loads_it() {
    let directory = directory_with("");
    let Some(theirs) = loaded_by_daemon(&directory) else {
        return;
    };
    let mut theirs: Vec<&str> = theirs.iter().map(|(name, _)| name.as_str()).collect();
    // Its default refers to another one since then (`tests/spec/versions.md`, 20).
    if installed(&directory).unwrap() < (3, 11) {
        let place = |theirs: &[&str], name| theirs.iter().position(|own| *own == name).unwrap();
        theirs.remove(place(&theirs, "alias_database"));
        let at = place(&theirs, "hash_queue_names");
        theirs.insert(at, "alias_database");
    }
    let ours = TABLE.iter().map(|param| param.name);
    let ours: Vec<&str> = ours.filter(|name| theirs.contains(name)).collect();
    assert_eq!(ours, theirs);
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const NAMES: &[&str] = &["f", "e", "num", "g", "level", "deep", "undefd"];
const WORDS: &[&str] = &[
    "a", "10", "9", "3.6", "x y", " ", "$$", "-", "(b)", "?", ":", "full",
];
const OPERATORS: &[&str] = &[
    "==",
    "!=",
    "<",
    "<=",
    ">=",
    ">",
    "<level",
    " == ",
    " >=level ",
];

/// A value with references in it, nested up to `depth`.
fn value(dice: &mut Dice, depth: usize) -> String {
    (0..=dice.below(3)).map(|_| piece(dice, depth)).collect()
}

fn piece(dice: &mut Dice, depth: usize) -> String {
    let name = dice.pick(NAMES);
    if depth == 0 {
        return match dice.below(3) {
            0 => dice.pick(WORDS).to_owned(),
            1 => format!("$({name})"),
            _ => format!("${{{name}}}"),
        };
    }
    let mut inner = || value(dice, depth - 1);
    let (a, b, c, d) = (inner(), inner(), inner(), inner());
    let operator = dice.pick(OPERATORS);
    match dice.below(10) {
        0 => format!("${name}"),
        1 => format!("${{{name}?{a}}}"),
        2 => format!("${{ {name} : {{{a}}} }}"),
        3 => format!("$({name}? {{{a}}} : {{{b}}})"),
        4 => format!("${{{name}?{{{a}}}:{b}}}"),
        5 => format!("${{{{{a}}}{operator}{{{b}}}}}"),
        6 | 7 => format!("${{{{{a}}}{operator}{{{b}}}?{{{c}}}:{{{d}}}}}"),
        8 => format!("${{{{{name}}}{operator}{{{}}}:{a}}}", dice.pick(WORDS)),
        _ => dice.pick(WORDS).to_owned(),
    }
}

/// Takes a byte out, or doubles one.
fn damaged(dice: &mut Dice, mut value: String) -> String {
    let at = dice.below(value.len());
    if dice.below(2) == 0 {
        value.remove(at);
    } else {
        value.insert(at, char::from(value.as_bytes()[at]));
    }
    value
}

/// Names in these tests whose values Postfix does not expand.
const NOT_EXPANDED: &[&str] = &["smtpd_expansion_filter", "smtpd_reject_footer"];

const DICTIONARY: &str = "f = full\ne =\nnum = 10\ng = $undefd\nlevel = 3.6\ndeep = ${f?<$num>}\n";

/// Ours for the value of `name`: what it expands to, or the line that ends it.
fn expansion(config: &Config, name: &str) -> Result<String, String> {
    match config.given(name.as_bytes(), name.as_bytes()) {
        Ok(value) => Ok(String::from_utf8(value.unwrap()).unwrap()),
        Err(error) => Err(error
            .warnings()
            .first()
            .map_or(format!("fatal: {error}"), |warning| {
                format!("warning: {warning}")
            })),
    }
}

/// A parameter, its line in main.cf, and this program's result.
type Case = (String, String, String);

/// Whether the installed Postfix has the operators of compatibility levels, which came with 3.6.
fn has_level_operators() -> bool {
    let main_cf = "smtp_bind_address = ${{3} <level {4} ? {yes} : {no}}\n";
    let output = postconf(&directory_with(main_cf), &["-xh", "smtp_bind_address"]);
    output.is_some_and(|output| output.stdout == b"yes\n")
}

/// For each of the `names` a value that we can expand, and a few values for each kind of mistake. `levels` tells whether
/// they may have operators of compatibility levels.
fn cases(names: &[String], levels: bool) -> (Vec<Case>, Vec<Case>) {
    let mut dice = Dice(628);
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..4 * names.len() {
        let mut value = value(&mut dice, round % 4);
        if round % 4 == 3 {
            value = damaged(&mut dice, value);
        }
        if !levels && ["<level", "=level"].iter().any(|it| value.contains(it)) {
            continue;
        }
        let Some(name) = names.get(good.len()).cloned() else {
            break;
        };
        let line = format!("{name} = {value}\n");
        match expansion(&config(&format!("{DICTIONARY}{line}")), &name) {
            Ok(expanded) => good.push((name, line, expanded.trim_matches(' ').to_owned())),
            Err(ends) => {
                let kind = kinds.entry(ends.chars().take(24).collect()).or_default();
                *kind += 1;
                if *kind <= 8 {
                    bad.push((name, line, ends));
                }
            }
        }
    }
    (good, bad)
}

#[test]
fn values_expand_as_postconf_expands_them() {
    let Some(known) = postconf(&directory_with(""), &["-d"]) else {
        return;
    };
    let names: Vec<String> = settings(&known.stdout)
        .into_keys()
        .filter(|name| name.starts_with("smtp") || name.starts_with("lmtp"))
        .filter(|name| !NOT_EXPANDED.contains(&name.as_str()))
        .collect();
    let levels = has_level_operators();
    let (good, bad) = cases(&names, levels);
    let counts = (good.len(), bad.len());
    let mistakes = if levels { 20 } else { 5 };
    assert!(counts.0 > 300 && counts.1 > mistakes, "{counts:?}");

    let mut arguments = vec!["-x"];
    arguments.extend(good.iter().map(|(name, _, _)| name.as_str()));
    let lines: String = good.iter().map(|(_, line, _)| line.as_str()).collect();
    let main_cf = format!("{DICTIONARY}{lines}");
    let output = postconf(&directory_with(main_cf), &arguments).unwrap();
    let theirs = settings(&output.stdout);
    for (name, line, ours) in &good {
        assert_eq!(theirs.get(name), Some(ours), "{line}");
    }
    // A fatal error takes postconf a second, so all of them at once.
    std::thread::scope(|scope| {
        for case in &bad {
            scope.spawn(|| ends_in_postconf(case));
        }
    });
}

/// postconf ends at the first mistake, so each needs a run of its own.
fn ends_in_postconf((name, line, ours): &Case) {
    let directory = directory_with(format!("{DICTIONARY}{line}"));
    let output = postconf(&directory, &["-x", name]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{line}");
    let ours = format!("postconf: {ours}\n");
    assert!(said.contains(&ours), "{line}{ours}{said}");
}
