//! `texthash:FILE`: the text from which postmap(1) makes indexed files.
//!
//! A line is a key, whitespace, and a value. Keys are not folded: a key with a capital letter is never found by a list,
//! which asks for lower case. Follows `tests/spec/client-access.md`, section 4.2.

use super::braces::end_of_key;
use super::table::{Keys, Reason};
use super::text::{Answer, Asked, Contents, Format, Reader, Source, TextTable};
use crate::config::KeyIndex;
use crate::config::lines::{is_space, trim};
use crate::log::Shown;

/// How lines are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texthash {
    /// Whether lines that are not UTF-8 are skipped: smtputf8_enable.
    pub(super) utf8: bool,
}

impl Texthash {
    /// The table `table`, whose lines are in the file at `path`.
    pub(super) fn open(self, table: &str, path: &str) -> Result<TextTable<Texthash>, Reason> {
        Ok(TextTable::new(table, Source::settled(path)?, self))
    }

    /// The key and the value of a line. An error in the line is a warning.
    fn entry<'a>(self, line: &'a [u8], reader: &mut Reader<'_>) -> Option<(&'a [u8], &'a [u8])> {
        match entry(line, self.utf8) {
            Err(problem) => {
                reader.warn(&format!("{problem} -- ignoring this line"));
                None
            }
            Ok((key, value)) => {
                if key.ends_with(b":") {
                    reader.warn("record is in \"key: value\" format; is this an alias file?");
                }
                Some((key, value))
            }
        }
    }
}

impl Format for Texthash {
    const KEYS: Keys = Keys::Fixed;

    type Whole = Entries;

    type Search = Search;

    fn whole(&self) -> Entries {
        Entries {
            format: *self,
            text: Vec::new(),
            keys: KeyIndex::default(),
        }
    }

    fn search(&self, asked: Asked) -> Search {
        Search {
            format: *self,
            asked,
            found: Vec::new(),
        }
    }
}

/// Why a table with a repeated key is unusable, as in Postfix: the key has two meanings.
fn duplicate(key: &[u8], reader: &Reader<'_>) -> String {
    let (place, key) = (reader.place(), Shown(key));
    format!("{place}: duplicate entry: \"{key}\"")
}

/// All keys and values.
#[derive(Debug)]
pub(super) struct Entries {
    format: Texthash,
    /// The lines, each with a newline after it and none in it.
    text: Vec<u8>,
    keys: KeyIndex,
}

impl Contents for Entries {
    fn rule(&mut self, line: &[u8], reader: &mut Reader<'_>) -> Result<(), String> {
        let Some((key, _)) = self.format.entry(line, reader) else {
            return Ok(());
        };
        let start = self.text.len();
        self.text.extend_from_slice(line);
        self.text.push(b'\n');
        let Entries { text, keys, .. } = self;
        let has_key = |start: usize| after(text, start, key).is_some();
        match keys.insert(key, start, has_key) {
            Some(_) => Err(duplicate(key, reader)),
            None => Ok(()),
        }
    }

    fn answer(&self, key: &str) -> Option<Answer> {
        let key = key.as_bytes();
        let has_key = |start: usize| after(&self.text, start, key).is_some();
        let start = self.keys.find(key, has_key);
        let rest = start.and_then(|start| after(&self.text, start, key));
        let line = rest.and_then(|rest| rest.split(|&b| b == b'\n').next());
        Some(Ok(line.map(|value| trim(value).to_vec())))
    }
}

/// What follows the key from a line on that begins there, if that has this key.
fn after<'a>(text: &'a [u8], start: usize, key: &[u8]) -> Option<&'a [u8]> {
    let rest = text.get(start..)?.strip_prefix(key)?;
    rest.first().is_some_and(|&b| is_space(b)).then_some(rest)
}

/// The keys of one client, with their values.
///
/// Unlike Postfix, which compares all keys, a search notices only repeated keys of the client
/// (`tests/spec/differences.md`, 53).
#[derive(Debug)]
pub(super) struct Search {
    format: Texthash,
    asked: Asked,
    found: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Search {
    /// Whether the key is one of the client's, or a domain of its name, with or without a leading dot.
    fn is_for(&self, key: &[u8]) -> bool {
        let Asked {
            key: first,
            name,
            addr,
        } = &self.asked;
        let is = |text: &Option<String>| text.as_ref().is_some_and(|text| text.as_bytes() == key);
        let is_parent = |name: &String| {
            let below = name.as_bytes().strip_suffix(key);
            below.is_some_and(|below| below.ends_with(b".") || key.starts_with(b"."))
        };
        is(first) || is(addr) || is(name) || name.as_ref().is_some_and(is_parent)
    }

    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        let entry = self.found.iter().find(|(own, _)| own == key);
        entry.map(|(_, value)| value.as_slice())
    }
}

impl Contents for Search {
    fn rule(&mut self, line: &[u8], reader: &mut Reader<'_>) -> Result<(), String> {
        let Some((key, value)) = self.format.entry(line, reader) else {
            return Ok(());
        };
        if self.is_for(key) {
            if self.value(key).is_some() {
                return Err(duplicate(key, reader));
            }
            self.found.push((key.to_vec(), value.to_vec()));
        }
        Ok(())
    }

    fn answer(&self, key: &str) -> Option<Answer> {
        let key = key.as_bytes();
        let value = self.value(key).map(<[u8]>::to_vec);
        self.is_for(key).then_some(Ok(value))
    }
}

/// The key and the value of a line, or its error.
fn entry(line: &[u8], utf8: bool) -> Result<(&[u8], &[u8]), String> {
    let shown = Shown(line);
    if utf8 && !line.is_ascii() && std::str::from_utf8(line).is_err() {
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
        text::parse(Texthash { utf8 }.whole(), "F", file)
    }

    fn find(file: &str, key: &str) -> Option<String> {
        let format = Texthash { utf8: true };
        let value = text::find(&format, file.as_bytes(), key).expect("an answer");
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
        assert_eq!(table.expect("table").keys.places().count(), 0);
        let table = parse(latin1, false).1.expect("table");
        assert_eq!(table.keys.places().count(), 1);
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

    #[test]
    fn a_search_refuses_a_key_of_the_client_that_is_there_twice() {
        let format = Texthash { utf8: true };
        let search = |name: &str, file: &str| {
            let asked = Asked {
                key: Some(name.to_owned()),
                name: Some(name.to_owned()),
                addr: Some("192.0.2.1".to_owned()),
            };
            text::parse(format.search(asked), "F", file.as_bytes()).1
        };
        for twice in [
            "a.b.example",
            "b.example",
            ".example",
            "example",
            "192.0.2.1",
        ] {
            let file = format!("{twice} x\nother x\n{twice} y\n");
            let reason = search("a.b.example", &file).expect_err(twice);
            assert_eq!(reason, format!("F, line 3: duplicate entry: \"{twice}\""));
            assert!(search("other.net", &file).is_ok() || twice == "192.0.2.1");
        }
        for other in [
            "A.b.example",
            "xample",
            "a.b",
            "b.exampl",
            "c.example",
            "192.0.2.10",
        ] {
            let search = search("a.b.example", &format!("{other} x\n{other} y\nexample z\n"));
            let search = search.expect(other);
            let value = search.answer("example").expect("asked").expect("an answer");
            assert_eq!(value.as_deref(), Some(&b"z"[..]));
            assert_eq!(search.answer("b.example"), Some(Ok(None)));
            assert_eq!(search.answer("c.example"), None);
        }
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
                let expected = lines.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_bytes().to_vec());
                prop_assert_eq!(table.answer(&key), Some(Ok(expected)));
            }
        }
    }
}
