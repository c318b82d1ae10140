//! `texthash:FILE`: the text that postmap(1) makes indexed files of, read as it is.
//!
//! A line is a key, whitespace, and a value. Keys are not folded: one with a capital letter is never found by a list,
//! which asks for lower case. Authority: `tests/spec/client-access.md`, section 4.2.

use std::collections::BTreeMap;

use super::braces::end_of_key;
use super::table::{Keys, Reason};
use super::text::{Contents, Reader, Source, TextTable};
use crate::config::lines::{is_space, trim};
use crate::log::Shown;

/// Keys and values.
#[derive(Debug)]
pub(super) struct Entries {
    /// Whether lines that are no UTF-8 do not count.
    utf8: bool,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Entries {
    /// `utf8` is smtputf8_enable.
    pub(super) fn new(utf8: bool) -> Entries {
        Entries {
            utf8,
            entries: BTreeMap::new(),
        }
    }

    /// The table `table`, whose lines are in the file at `path`.
    pub(super) fn table(table: &str, path: &str, utf8: bool) -> Result<TextTable<Entries>, Reason> {
        let source = Source::settled(path)?;
        Ok(TextTable::new(table, source, Entries::new(utf8)))
    }
}

impl Contents for Entries {
    const KEYS: Keys = Keys::Fixed;

    /// A key that is there twice makes the table unusable, as in Postfix: nobody could say what it means.
    fn rule(&mut self, line: &[u8], reader: &mut Reader<'_>) -> Result<(), String> {
        match entry(line, self.utf8) {
            Err(problem) => reader.warn(&format!("{problem} -- ignoring this line")),
            Ok((key, value)) => {
                if key.ends_with(b":") {
                    reader.warn("record is in \"key: value\" format; is this an alias file?");
                }
                if self.entries.insert(key.to_vec(), value.to_vec()).is_some() {
                    let (place, key) = (reader.place(), Shown(key));
                    return Err(format!("{place}: duplicate entry: \"{key}\""));
                }
            }
        }
        Ok(())
    }

    fn value(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.entries.get(key.as_bytes()).cloned())
    }
}

/// Key and value of a line, or what is wrong with it.
fn entry(line: &[u8], utf8: bool) -> Result<(&[u8], &[u8]), String> {
    let shown = Shown(line);
    if utf8 && std::str::from_utf8(line).is_err() {
        return Err(format!("non-UTF-8 input \"{shown}\""));
    }
    let (end, quoted) = end_of_key(line, is_space);
    if quoted {
        return Err(format!("unbalanced '\"' in '{shown}'"));
    }
    let (key, value) = line.split_at(end);
    let value = trim(value);
    if key.is_empty() || value.is_empty() {
        return Err("expected format: key whitespace value".to_owned());
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lookup::text;

    fn parse(file: &[u8], utf8: bool) -> (Vec<String>, Result<Entries, String>) {
        text::parse(Entries::new(utf8), "F", file)
    }

    fn find(file: &str, key: &str) -> Option<String> {
        let entries = parse(file.as_bytes(), true).1.expect(file);
        let value = entries.value(key).expect("an answer");
        value.map(|value| String::from_utf8(value).expect("UTF-8"))
    }

    #[test]
    fn keys_are_found_as_postfix_finds_them() {
        for (file, key, value) in [
            ("a b\n", "a", Some("b")),
            ("a\tb", "a", Some("b")),
            ("A b\n", "a", None),
            ("a  b  \n", "a", Some("b")),
            ("a: b\n", "a", None),
            ("a: b\n", "a:", Some("b")),
            ("\"a b\" c\n", "\"a b\"", Some("c")),
            ("\"a b\" c\n", "a b", None),
            ("a\\ b c\n", "a\\ b", Some("c")),
            ("a\"b c\"d e\n", "a\"b c\"d", Some("e")),
            ("\"a\\\"b c\" d\n", "\"a\\\"b c\"", Some("d")),
            ("a b\n  c\n# x\n d\nb c\n", "a", Some("b  c d")),
            ("a b\0c\n", "a", Some("b")),
            ("a \"b\n", "a", Some("\"b")),
            ("a\x0bb\n", "a", Some("b")),
            ("", "a", None),
        ] {
            assert_eq!(find(file, key).as_deref(), value, "{file:?} {key}");
        }
    }

    #[test]
    fn what_is_odd_is_named_with_its_line() {
        for (file, warning) in [
            (
                "a b\nc\n",
                "F, line 2: expected format: key whitespace value -- ignoring this line",
            ),
            (
                "a \0b\n",
                "F, line 1: expected format: key whitespace value -- ignoring this line",
            ),
            (
                "a\\\n",
                "F, line 1: expected format: key whitespace value -- ignoring this line",
            ),
            (
                "a: b\n",
                "F, line 1: record is in \"key: value\" format; is this an alias file?",
            ),
            (
                "\"a b c\n",
                "F, line 1: unbalanced '\"' in '\"a b c' -- ignoring this line",
            ),
            (
                " a b\nc d\n",
                "F: logical line must not start with whitespace: \" a b\"",
            ),
            (
                "  a bcdefghijklmnopqrstuvwxyz0123456789\n",
                "F: logical line must not start with whitespace: \"  a bcdefghijklmnopqrstuvwxyz0...\"",
            ),
        ] {
            let (warnings, entries) = parse(file.as_bytes(), true);
            assert_eq!(warnings, [warning], "{file:?}");
            assert!(entries.is_ok());
        }
        let latin1 = b"\xe9 b\n";
        let (warnings, table) = parse(latin1, true);
        assert_eq!(
            warnings,
            ["F, line 1: non-UTF-8 input \"? b\" -- ignoring this line"]
        );
        assert!(table.expect("table").entries.is_empty());
        let table = parse(latin1, false).1.expect("table");
        assert_eq!(table.entries.len(), 1);
    }

    #[test]
    fn a_key_that_is_there_twice_makes_the_table_unusable() {
        let (warnings, table) = parse(b"a b\nd: e\n\nc d\na z\nx\n", true);
        assert_eq!(
            table.expect_err("twice"),
            "F, line 5: duplicate entry: \"a\""
        );
        assert_eq!(warnings.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, utf8: bool) {
            drop(parse(&bytes, utf8));
        }

        #[test]
        fn the_first_line_with_the_key_has_the_value(
            lines in proptest::collection::vec(("[a-c]{1,2}", "[a-z]{1,3}"), 0..9), key in "[a-c]{1,2}"
        ) {
            let file: String = lines.iter().map(|(k, v)| format!("{k} {v}\n")).collect();
            let (_, table) = parse(file.as_bytes(), true);
            let twice = lines.iter().enumerate().any(|(i, (k, _))| lines[..i].iter().any(|(own, _)| own == k));
            prop_assert_eq!(table.is_err(), twice);
            if let Ok(table) = table {
                let expected = lines.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_bytes());
                prop_assert_eq!(table.entries.get(key.as_bytes()).map(Vec::as_slice), expected);
            }
        }
    }
}
