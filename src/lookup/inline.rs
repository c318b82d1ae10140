//! `inline:{key=value, {key = value with blanks}}`: a table in main.cf.
//!
//! Keys are compared unchanged; a list asks for lower case only. Follows `tests/spec/client-access.md`, section 4.2.

use super::braces::{self, end_of_key, next_item, trim};
use super::table::{ClientKeys, Keys, Problem, Reason, Table};
use crate::config::lines::is_space;

/// Keys with their values, in their order.
#[derive(Debug)]
pub(super) struct Inline {
    name: String,
    entries: Vec<(String, String)>,
}

impl Inline {
    pub(super) fn parse(name: &str, text: &str) -> Result<Inline, Reason> {
        match entries(text) {
            Ok(entries) => Ok(Inline {
                name: name.to_owned(),
                entries,
            }),
            Err(problem) => Err(Reason(format!(
                "{problem}: \"{name}\"; need \"inline:{{name=value...}}\""
            ))),
        }
    }
}

impl Table for Inline {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        Keys::Fixed
    }

    fn find(&self, key: &str, _: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem> {
        // Of several entries with one key the last one counts.
        let entry = self.entries.iter().rfind(|(own, _)| own == key);
        Ok(entry.map(|(_, value)| value.clone().into_bytes()))
    }
}

fn entries(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut rest = match braces::inside(text) {
        Ok(inside) if text != "{}" => inside,
        Ok(_) | Err(_) => return Err("bad syntax".to_owned()),
    };
    let mut entries = Vec::new();
    while let Some(item) = next_item(&mut rest) {
        let item = if item.starts_with('{') {
            braces::inside(item).map_err(|error| error.to_string())?
        } else {
            item
        };
        let (key, value) = split(item)?;
        entries.push((key.to_owned(), value.to_owned()));
    }
    if entries.is_empty() {
        return Err("empty table".to_owned());
    }
    Ok(entries)
}

/// Splits `key = value`. A key may have blanks and equal signs within quotes, or after a backslash.
fn split(item: &str) -> Result<(&str, &str), String> {
    let item = trim(item);
    let (end, quoted) = end_of_key(item.as_bytes(), |b| b == b'=' || is_space(b));
    if quoted {
        return Err("unbalanced '\"'".to_owned());
    }
    let (key, rest) = item.split_at(end);
    if item.is_empty() {
        return Err("no key found; expected format: key = value".to_owned());
    }
    match trim(rest).strip_prefix('=') {
        None => Err("missing '=' after attribute name".to_owned()),
        Some(value) => Ok((key, trim(value))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inline(text: &str) -> Result<Inline, Reason> {
        Inline::parse(&format!("inline:{text}"), text)
    }

    fn find(text: &str, key: &str) -> Option<String> {
        let value = inline(text)
            .expect(text)
            .find(key, &ClientKeys::default())
            .expect("no problem");
        value.map(|value| String::from_utf8(value).expect("UTF-8"))
    }

    #[test]
    fn entries_are_found_as_postfix_finds_them() {
        for (text, key, value) in [
            ("{a=b}", "a", Some("b")),
            ("{a=b}", "A", None),
            ("{ {a = b c} , {\"a d\" = x}}", "a", Some("b c")),
            ("{ {\"a d\" = x}}", "\"a d\"", Some("x")),
            ("{ {\"a d\" = x}}", "a d", None),
            ("{{a\\ b = c}}", "a\\ b", Some("c")),
            ("{{ {a}=b}}", "a", None),
            ("{a=b,a=c}", "a", Some("c")),
            ("{a=}", "a", Some("")),
            ("{{a = }}", "a", Some("")),
            ("{{a == b}}", "a", Some("= b")),
            ("{{a,b=c}}", "a,b", Some("c")),
            ("{a={b}}", "a", Some("{b}")),
            ("{a={b, b=c}}", "b", None),
            ("{=b}", "", Some("b")),
        ] {
            assert_eq!(find(text, key).as_deref(), value, "{text} {key}");
        }
    }

    #[test]
    fn what_is_no_table_is_refused_in_postfix_words() {
        for (text, problem) in [
            ("{}", "bad syntax"),
            ("{a", "bad syntax"),
            ("a=b", "bad syntax"),
            ("{a=b}x", "bad syntax"),
            ("{{a=b}", "bad syntax"),
            ("{a}", "missing '=' after attribute name"),
            ("{ a = b }", "missing '=' after attribute name"),
            ("{{a b = c}}", "missing '=' after attribute name"),
            ("{{a=b}x}", "syntax error after '}' in \"{a=b}x\""),
            ("{{\"a = c}}", "unbalanced '\"'"),
            ("{ { } }", "no key found; expected format: key = value"),
            ("{ }", "empty table"),
        ] {
            let expected =
                format!("{problem}: \"inline:{text}\"; need \"inline:{{name=value...}}\"");
            assert_eq!(inline(text).expect_err(text).to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_table_or_refused(text in "[{}=,\"\\\\ a-c\u{e9}]{0,20}|\\PC{0,20}") {
            if let Ok(table) = inline(&text) {
                prop_assert!(!table.entries.is_empty());
            }
        }

        #[test]
        fn every_entry_is_found_and_nothing_else(
            entries in proptest::collection::vec(("[a-d.]{1,3}", "[a-z ]{0,5}"), 1..9), key in "[a-d.]{1,3}"
        ) {
            let items: Vec<String> = entries.iter().map(|(k, v)| format!("{{{k} = {v}}}")).collect();
            let expected = entries.iter().rfind(|(k, _)| *k == key).map(|(_, v)| v.trim().to_owned());
            prop_assert_eq!(find(&format!("{{{}}}", items.join(", ")), &key), expected);
        }
    }
}
