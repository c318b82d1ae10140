//! Compares the manual page with the table of parameters.
//!
//! The other contents of the manual are left to `tests/manual.rs`.

use std::collections::BTreeMap;

use super::super::params::DefaultValue;
use super::*;

const MANUAL: &str = include_str!("../../qmqpd.8");

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
            // Lists have blanks in the manual, so that they can be broken into lines.
            let without_blanks = |list: &str| list.replace(", ", ",");
            let (default, expected) = (without_blanks(default), without_blanks(expected));
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
