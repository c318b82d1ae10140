//! What the Postfix that is installed says otherwise than the version that we follow.
//!
//! The table is the page of versions (`tests/spec/versions.md`, 1 and following); this reads it, and knows no text of its
//! own. Every comparison with Postfix goes through it, so that the same tests judge every version. Where a version
//! behaves otherwise, a dialogue names the row.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::sync::OnceLock;

use super::instance::Instance;

const PAGE: &str = include_str!("../spec/versions.md");

/// A version of Postfix, without the patch level.
pub type Version = (u32, u32);

/// What a row's lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Log lines.
    Log,
    /// Log lines that our program passes on from postmap(1) when a table is asked. Postfix has them at its start.
    PassedOn,
    /// Log lines whose older form says less. Both sides are compared in that form.
    Both,
    /// The data of an N record.
    Record,
    /// The row says in words what is different.
    Words,
}

/// A row of the table.
struct Change {
    number: u32,
    /// The first version that has the newer form.
    since: Version,
    place: Place,
    older: Vec<&'static str>,
    newer: Vec<&'static str>,
    /// Whether ours is the newer form.
    ours_is_newer: bool,
}

impl Change {
    fn read(row: &'static str) -> Option<Change> {
        let cells: Vec<&str> = row.strip_prefix("| ")?.split(" | ").collect();
        let number = cells[0].parse().ok()?;
        let [_, since, place, older, newer, ours] = cells[..] else {
            panic!("six cells: {row}");
        };
        let lines = |cell: &'static str| cell.split('`').skip(1).step_by(2).collect();
        Some(Change {
            number,
            since: version(since),
            place: match place {
                "log" => Place::Log,
                "log, passed on" => Place::PassedOn,
                "log, both" => Place::Both,
                "record N" => Place::Record,
                _ => Place::Words,
            },
            older: lines(older),
            newer: lines(newer),
            ours_is_newer: match ours.trim_end_matches([' ', '|']) {
                "newer" => true,
                "older" => false,
                _ if place == "log" || place == "record N" => panic!("newer or older: {row}"),
                _ => true,
            },
        })
    }

    /// The lines as the installed version has them, and as we have them; nothing if these are the same.
    fn translation(&self) -> Option<(&[&'static str], &[&'static str])> {
        let is_newer = installed() >= self.since;
        match (is_newer, self.ours_is_newer) {
            (false, true) => Some((&self.older, &self.newer)),
            (true, false) => Some((&self.newer, &self.older)),
            _ => None,
        }
    }

    fn renew(&self, lines: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        match self.translation() {
            Some((from, to)) => replace(from, to, lines),
            None => lines,
        }
    }
}

fn changes() -> &'static [Change] {
    static CHANGES: OnceLock<Vec<Change>> = OnceLock::new();
    CHANGES.get_or_init(|| {
        let changes: Vec<Change> = PAGE.lines().filter_map(Change::read).collect();
        assert!(changes.len() > 5, "the table of versions");
        changes
    })
}

fn at(place: Place) -> impl Iterator<Item = &'static Change> {
    changes().iter().filter(move |change| change.place == place)
}

/// Log lines of Postfix's, as the version that we follow writes them.
pub fn renew_log(lines: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    at(Place::Log).fold(lines, |lines, change| change.renew(lines))
}

/// Log lines without what the installed version does not say: of ours, of its own, or of what is expected.
pub fn coarsen(lines: Vec<String>) -> Vec<String> {
    let lines = lines.into_iter().map(String::into_bytes).collect();
    let older = at(Place::Both).filter(|change| installed() < change.since);
    let lines = older.fold(lines, |lines: Vec<Vec<u8>>, change| {
        replace(&change.newer, &change.older, lines)
    });
    let text = |line: Vec<u8>| String::from_utf8(line).unwrap();
    lines.into_iter().map(text).collect()
}

/// The data of an N record of Postfix's, as the version that we follow writes it.
pub fn renew_record(data: Vec<u8>) -> Vec<u8> {
    at(Place::Record).fold(data, |data, change| change.renew(vec![data]).concat())
}

/// Whether a log line is one that our program passes on from postmap(1), at another moment than Postfix.
pub fn is_passed_on(line: &str) -> bool {
    let mut forms = at(Place::PassedOn).flat_map(|change| &change.newer);
    let text = line.split_once("]: ").map_or(line, |(_, text)| text);
    forms.any(|form| captures(form, text, &mut BTreeMap::new()))
}

/// Whether the installed Postfix has the newer form of this row.
pub fn has(number: u32) -> bool {
    let row = changes().iter().find(|change| change.number == number);
    installed() >= row.expect("a row of that number").since
}

/// The version of the Postfix on this machine.
pub fn installed() -> Version {
    static VERSION: OnceLock<Version> = OnceLock::new();
    *VERSION.get_or_init(ask_postconf)
}

fn ask_postconf() -> Version {
    let instance = Instance::new(&[]);
    let mut postconf = Command::new("postconf");
    let output = postconf
        .args(["-dh", "mail_version"])
        .env("MAIL_CONFIG", instance.config_directory())
        .output()
        .unwrap();
    version(String::from_utf8(output.stdout).unwrap().trim())
}

fn version(text: &str) -> Version {
    let mut numbers = text.split(['.', '-']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Puts the lines `to` in the place of lines `from` that follow one another. What stands before `]: ` stays.
pub fn replace(from: &[&'static str], to: &[&'static str], lines: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut new = Vec::new();
    let mut rest = lines.as_slice();
    while let Some((first, others)) = rest.split_first() {
        let texts = rest.iter().map_while(|line| std::str::from_utf8(line).ok());
        let texts: Vec<&str> = texts.take(from.len()).collect();
        let mut found = BTreeMap::new();
        let start = texts.first().map_or(0, |text| start_of_text(text));
        let fits = texts.len() == from.len()
            && from
                .iter()
                .zip(&texts)
                .all(|(form, text)| captures(form, &text[start_of_text(text)..], &mut found));
        if fits && !from.is_empty() {
            let line = |form: &&str| [&first[..start], fill(form, &found).as_bytes()].concat();
            new.extend(to.iter().map(line));
            rest = &rest[from.len()..];
        } else {
            new.push(first.clone());
            rest = others;
        }
    }
    new
}

fn start_of_text(line: &str) -> usize {
    line.find("]: ").map_or(0, |at| at + 3)
}

/// Whether a text has this form, and what stands in it for each `{NAME}`: the shortest that goes. ADDR is an address,
/// DAY has three letters, anything else may be any text, the same wherever the name is the same.
fn captures<'a>(
    form: &'static str,
    text: &'a str,
    found: &mut BTreeMap<&'static str, &'a str>,
) -> bool {
    let Some((literal, rest)) = form.split_once('{') else {
        return form == text;
    };
    let (Some(text), Some((name, rest))) = (text.strip_prefix(literal), rest.split_once('}'))
    else {
        return false;
    };
    if let Some(known) = found.get(name) {
        return text
            .strip_prefix(known)
            .is_some_and(|text| captures(rest, text, found));
    }
    let ends = (1..=text.len()).filter(|&end| text.is_char_boundary(end));
    for end in ends {
        let value = &text[..end];
        let mut with = found.clone();
        with.insert(name, value);
        if may_be(name, value) && captures(rest, &text[end..], &mut with) {
            *found = with;
            return true;
        }
    }
    false
}

fn may_be(name: &str, value: &str) -> bool {
    match name {
        "ADDR" => value.parse::<IpAddr>().is_ok(),
        "DAY" => value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_alphabetic()),
        _ => true,
    }
}

/// The line of this form. `{NAME:20}` is at most twenty characters of it.
fn fill(form: &str, found: &BTreeMap<&str, &str>) -> String {
    let mut line = String::new();
    let mut rest = form;
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap();
        let (name, limit) = name.split_once(':').unwrap_or((name, "9999"));
        line += literal;
        line.extend(found[name].chars().take(limit.parse().unwrap()));
        rest = after;
    }
    line + rest
}
