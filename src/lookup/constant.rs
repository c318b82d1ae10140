//! `static:value`, which has every key, and `fail:any`, whose lookups all fail.
//!
//! Follows `tests/spec/client-access.md`, section 4.2.

use super::braces;
use super::table::{ClientKeys, Keys, Problem, Reason, Table};

/// A table in which every key has the same value.
#[derive(Debug)]
pub(super) struct Static {
    name: String,
    value: Vec<u8>,
}

impl Static {
    /// `text` is the value, in braces if it has blanks.
    pub(super) fn parse(name: &str, text: &str) -> Result<Static, Reason> {
        let value = if text.starts_with('{') {
            braces::inside(text)
                .map_err(|error| Reason(format!("bad static:name syntax: {error}")))?
        } else {
            text
        };
        Ok(Static {
            name: name.to_owned(),
            value: value.as_bytes().to_vec(),
        })
    }
}

impl Table for Static {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        Keys::Any
    }

    fn find(&self, _: &str, _: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem> {
        Ok(Some(self.value.clone()))
    }
}

/// A table in which every lookup is an error.
#[derive(Debug)]
pub(super) struct Fail {
    name: String,
}

impl Fail {
    pub(super) fn new(name: &str) -> Fail {
        Fail {
            name: name.to_owned(),
        }
    }
}

impl Table for Fail {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        Keys::Any
    }

    fn find(&self, _: &str, _: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem> {
        Err(Problem::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_table_has_every_key() {
        for (text, value) in [
            ("x", "x"),
            ("{a b}", "a b"),
            ("{ a }", "a"),
            ("{ }", ""),
            ("}", "}"),
        ] {
            let table = Static::parse("static:x", text).expect(text);
            assert_eq!(
                table.find("any", &ClientKeys::default()),
                Ok(Some(value.into())),
                "{text}"
            );
        }
    }

    #[test]
    fn a_static_table_with_odd_braces_is_refused() {
        for (text, reason) in [
            ("{a", "bad static:name syntax: missing '}' in \"{a\""),
            (
                "{a}b",
                "bad static:name syntax: syntax error after '}' in \"{a}b\"",
            ),
        ] {
            let refused = Static::parse("static:x", text).expect_err(text);
            assert_eq!(refused.to_string(), reason);
        }
    }
}
