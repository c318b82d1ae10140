//! The manual page and the README, held against the parameter table and against what the program asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::super::params::DefaultValue;
use super::*;
use crate::config::ACTS;

const MANUAL: &str = include_str!("../../qmqpd.8");
const README: &str = include_str!("../../../README.md");

/// A parameter's entry in the manual: `.BR NAME " (KIND, default: VALUE)"`.
fn entries() -> BTreeMap<&'static str, (&'static str, String)> {
    let entry = |line: &'static str| {
        let (name, rest) = line.strip_prefix(".BR ")?.split_once(" \" (")?;
        let (kind, default) = rest.strip_suffix(")\"")?.split_once(", default: ")?;
        let default = default.replace("\\-", "-").replace("\\:", "");
        Some((name, (kind, default)))
    };
    MANUAL.lines().filter_map(entry).collect()
}

/// How a default is written for people.
fn shown(default: &DefaultValue) -> Option<&'static str> {
    match default {
        DefaultValue::Text("") => Some("empty"),
        DefaultValue::Text(text) => Some(text),
        // A phrase; what it comes to depends on the machine.
        DefaultValue::Computed(_) | DefaultValue::Fixed(_) => None,
    }
}

#[test]
fn the_manual_has_the_kind_and_the_default_of_each_parameter_that_acts() {
    let entries = entries();
    for param in TABLE {
        let Some((kind, default)) = entries.get(param.name) else {
            assert!(
                !ACTS.contains(&param.name),
                "not in the manual: {}",
                param.name
            );
            continue;
        };
        assert!(ACTS.contains(&param.name), "not in ACTS: {}", param.name);
        assert_eq!(*kind, param.kind, "{}", param.name);
        if let Some(expected) = shown(&param.default) {
            assert_eq!(default, expected, "{}", param.name);
        }
    }
    assert_eq!(
        entries.len(),
        ACTS.len(),
        "no such parameter, or one twice: {entries:?}"
    );
}

#[test]
fn the_manual_has_nothing_but_parameters_as_parameters() {
    for name in entries().keys() {
        assert!(TABLE.iter().any(|param| param.name == *name), "{name}");
    }
}

fn sources(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn what_the_program_asks_for_acts() {
    let mut texts = Vec::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir()
            && !["config", "command"]
                .iter()
                .any(|room| path.ends_with(room))
        {
            sources(&path, &mut texts);
        }
    }
    let asked: BTreeSet<&str> = TABLE
        .iter()
        .map(|param| param.name)
        .filter(|name| {
            texts
                .iter()
                .any(|text| text.contains(&format!(".{name}()")))
        })
        .collect();
    assert!(asked.len() > 20, "{asked:?}: is the scan broken?");
    for name in &asked {
        assert!(ACTS.contains(name), "{name} is asked for, and not in ACTS");
    }
    // Through another parameter, or through `mail_owner_ids`.
    let indirectly = ["compatibility_level", "mail_owner", "mynetworks"];
    for name in ACTS {
        assert!(
            asked.contains(name) || indirectly.contains(name),
            "{name} is in ACTS, and nobody asks for it"
        );
    }
}

/// The words in backquotes of a piece of Markdown.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_readme_has_the_defaults_of_the_parameters_it_lists() {
    let (_, configuration) = README.split_once("\n## Configuration\n").unwrap();
    let (configuration, _) = configuration.split_once("\n## ").unwrap();
    let mut listed = BTreeSet::new();
    for row in configuration.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let (names, defaults) = (cells.next().unwrap(), cells.next().unwrap());
        let names = quoted(names);
        listed.extend(names.iter().copied());
        if defaults.is_empty() {
            continue;
        }
        let defaults: Vec<&str> = split_defaults(defaults);
        let one_for_all = defaults.len() == 1;
        assert!(one_for_all || defaults.len() == names.len(), "{row}");
        for (position, name) in names.iter().enumerate() {
            let param = TABLE.iter().find(|param| param.name == *name);
            let param = param.unwrap_or_else(|| panic!("no parameter {name}"));
            let default = defaults[if one_for_all { 0 } else { position }];
            let expected = shown(&param.default).unwrap();
            // In words, where the default is an expression.
            if !expected.contains('$') {
                assert_eq!(default, expected, "{name}");
            }
        }
    }
    for name in ACTS.iter().filter(|name| name.starts_with("qmqpd_")) {
        assert!(listed.contains(name), "{name} is not in the README");
    }
}

/// The defaults of a row: `a`, `b, c`, empty.
fn split_defaults(cell: &str) -> Vec<&str> {
    let mut defaults = Vec::new();
    let mut rest = cell;
    while !rest.is_empty() {
        let end = match rest.strip_prefix('`') {
            Some(inner) => {
                let (value, after) = inner.split_once('`').unwrap();
                defaults.push(value);
                rest = after;
                rest.find(',')
            }
            None => {
                let end = rest.find(',');
                defaults.push(rest[..end.unwrap_or(rest.len())].trim());
                end
            }
        };
        rest = end.map_or("", |comma| rest[comma + 1..].trim_start());
    }
    defaults
}
