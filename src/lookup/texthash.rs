//! `texthash:FILE`: the text that postmap(1) makes indexed files of, read as it is.
//!
//! A line is a key, whitespace, and a value. Keys are not folded: one with a capital letter is never found by a list,
//! which asks for lower case. Authority: `tests/spec/client-access.md`, section 4.2.

use std::collections::BTreeMap;

use super::braces::end_of_key;
use super::table::{Keys, Problem, Reason, Table};
use super::text::{self, Once, Parsed, Source};
use crate::config::lines::{is_space, trim};
use crate::log::{Shown, error_text};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A text file of keys and values.
#[derive(Debug)]
pub(super) struct TextHash {
    name: String,
    source: Source,
    utf8: bool,
    entries: Once<Entries>,
}

impl TextHash {
    /// `utf8` is smtputf8_enable: lines that are no UTF-8 do not count.
    pub(super) fn open(name: &str, path: &str, utf8: bool) -> Result<TextHash, Reason> {
        let source = Source::file(path)
            .map_err(|error| Reason(format!("open database {path}: {}", error_text(&error))))?;
        Ok(TextHash::over(name, source, utf8))
    }

    pub(super) fn over(name: &str, source: Source, utf8: bool) -> TextHash {
        TextHash {
            name: name.to_owned(),
            source,
            utf8,
            entries: Once::new(),
        }
    }

    fn read(&self) -> Parsed<Entries> {
        let path = self.source.name();
        match self.source.read_settled() {
            Ok(bytes) => parse(path, &bytes, self.utf8),
            Err(error) => Parsed {
                warnings: Vec::new(),
                result: Err(format!("read {path}: {}", error_text(&error))),
            },
        }
    }
}

impl Table for TextHash {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        Keys::Fixed
    }

    fn find(&self, key: &str) -> Result<Option<Vec<u8>>, Problem> {
        let entries = self.entries.get(&self.name, || self.read())?;
        Ok(entries.get(key.as_bytes()).cloned())
    }

    fn load(&self) -> Result<(), Problem> {
        self.entries.load(|| self.read())
    }
}

/// Reads the lines. A key that is there twice makes the table unusable, as in Postfix: nobody could say what it means.
fn parse(path: &str, bytes: &[u8], utf8: bool) -> Parsed<Entries> {
    let mut entries = Entries::new();
    let mut warnings = Vec::new();
    let mut misplaced = Vec::new();
    let mut result = Ok(());
    for line in text::lines(path, bytes, &mut |warning| misplaced.push(warning)) {
        let place = format!("{path}, line {}", line.first_line);
        match entry(&line.text, utf8) {
            Err(problem) => warnings.push(format!("{place}: {problem} -- ignoring this line")),
            Ok((key, value)) => {
                if key.ends_with(b":") {
                    warnings.push(format!(
                        "{place}: record is in \"key: value\" format; is this an alias file?"
                    ));
                }
                if entries.insert(key.to_vec(), value.to_vec()).is_some() {
                    let key = Shown(key);
                    result = Err(format!("{place}: duplicate entry: \"{key}\""));
                    break;
                }
            }
        }
    }
    // Only the first line of text can be misplaced, so this is the order.
    misplaced.append(&mut warnings);
    Parsed {
        warnings: misplaced,
        result: result.map(|()| entries),
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

    fn find(file: &str, key: &str) -> Option<String> {
        let entries = parse("F", file.as_bytes(), true).result.expect(file);
        let value = entries.get(key.as_bytes()).cloned();
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
            let parsed = parse("F", file.as_bytes(), true);
            assert_eq!(parsed.warnings, [warning], "{file:?}");
            assert!(parsed.result.is_ok());
        }
        let latin1 = b"\xe9 b\n";
        let parsed = parse("F", latin1, true);
        assert_eq!(
            parsed.warnings,
            ["F, line 1: non-UTF-8 input \"? b\" -- ignoring this line"]
        );
        assert!(parsed.result.expect("table").is_empty());
        assert_eq!(parse("F", latin1, false).result.expect("table").len(), 1);
    }

    #[test]
    fn a_key_that_is_there_twice_makes_the_table_unusable() {
        let parsed = parse("F", b"a b\nd: e\n\nc d\na z\nx\n", true);
        assert_eq!(
            parsed.result.expect_err("twice"),
            "F, line 5: duplicate entry: \"a\""
        );
        assert_eq!(parsed.warnings.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, utf8: bool) {
            drop(parse("F", &bytes, utf8));
        }

        #[test]
        fn the_first_line_with_the_key_has_the_value(
            lines in proptest::collection::vec(("[a-c]{1,2}", "[a-z]{1,3}"), 0..9), key in "[a-c]{1,2}"
        ) {
            let file: String = lines.iter().map(|(k, v)| format!("{k} {v}\n")).collect();
            let parsed = parse("F", file.as_bytes(), true);
            let twice = lines.iter().enumerate().any(|(i, (k, _))| lines[..i].iter().any(|(own, _)| own == k));
            prop_assert_eq!(parsed.result.is_err(), twice);
            if let Ok(entries) = parsed.result {
                let expected = lines.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_bytes());
                prop_assert_eq!(entries.get(key.as_bytes()).map(Vec::as_slice), expected);
            }
        }
    }
}
