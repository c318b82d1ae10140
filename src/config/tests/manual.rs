//! The manual page and the README, held against the parameter table.

use std::collections::{BTreeMap, BTreeSet};

use super::super::params::DefaultValue;
use super::*;

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
        let entry = entries.get(param.name);
        assert_eq!(entry.is_some(), param.acts, "{}", param.name);
        let Some((kind, default)) = entry else {
            continue;
        };
        assert_eq!(*kind, param.kind, "{}", param.name);
        if let Some(expected) = shown(&param.default) {
            assert_eq!(default, expected, "{}", param.name);
        }
    }
}

#[test]
fn the_manual_has_nothing_but_parameters_as_parameters() {
    for name in entries().keys() {
        assert!(TABLE.iter().any(|param| param.name == *name), "{name}");
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
    for param in TABLE.iter().filter(|param| param.acts) {
        let is_ours = param.name.starts_with("qmqpd_");
        let in_readme = listed.contains(param.name);
        assert!(in_readme || !is_ours, "{} is not in the README", param.name);
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
