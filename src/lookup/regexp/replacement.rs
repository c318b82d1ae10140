//! Checks the `$1` in values of regexp tables.
//!
//! `$name`, `${name}` and `$(name)` are references, `$$` is a dollar sign; here every name must be a number. Follows
//! regexp_table(5), and Postfix's messages about wrong values. The references are not expanded: a list does not use
//! values.

use crate::log::Shown;

/// The highest number after a `$`, or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Highest(pub(super) usize);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// The text after a `$` is no name.
    Syntax(String),
    /// The name is no number, or no group's.
    Index(String),
}

/// Reads a value.
pub(super) fn check(value: &[u8]) -> Result<Highest, Error> {
    let mut highest = 0;
    let mut rest = value;
    while let Some(dollar) = rest.iter().position(|&b| b == b'$') {
        let after = rest.get(dollar + 1..).unwrap_or_default();
        let (name, next) = match after.first() {
            Some(b'$') => {
                rest = after.get(1..).unwrap_or_default();
                continue;
            }
            Some(b'{') => enclosed(after, b'}'),
            Some(b'(') => enclosed(after, b')'),
            Some(_) | None => {
                let is_name = |b: &&u8| b.is_ascii_alphanumeric() || **b == b'_';
                Some(after.split_at(after.iter().take_while(is_name).count()))
            }
        }
        .ok_or_else(|| Error::Syntax(problem("truncated macro reference", value)))?;
        if name.is_empty() {
            return Err(Error::Syntax(problem("empty macro name", value)));
        }
        highest = highest.max(index(name)?);
        rest = next;
    }
    Ok(Highest(highest))
}

fn problem(what: &str, value: &[u8]) -> String {
    format!("{what}: \"{}\"", Shown(value))
}

fn index(name: &[u8]) -> Result<usize, Error> {
    let shown = Shown(name);
    if !name.iter().all(u8::is_ascii_digit) {
        return Err(Error::Index(format!(
            "non-numeric replacement index \"{shown}\""
        )));
    }
    let number = shown.to_string().parse().unwrap_or(usize::MAX);
    if number == 0 {
        return Err(Error::Index(format!(
            "out-of-range replacement index \"{shown}\""
        )));
    }
    Ok(number)
}

/// The text inside the pair that `text` begins with, and the rest. Pairs nest.
fn enclosed(text: &[u8], closing: u8) -> Option<(&[u8], &[u8])> {
    let opening = text.first()?;
    let mut depth = 0_usize;
    let end = text.iter().position(|b| {
        if b == opening {
            depth += 1;
        } else if *b == closing {
            depth = depth.saturating_sub(1);
        }
        depth == 0
    })?;
    Some((text.get(1..end)?, text.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_counts() {
        for (value, highest) in [
            ("OK", 0),
            ("$$", 0),
            ("$$1", 0),
            ("$1", 1),
            ("$01", 1),
            ("a$1-$12.", 12),
            ("${1}y", 1),
            ("$(2)", 2),
            ("$1}", 1),
        ] {
            assert_eq!(check(value.as_bytes()), Ok(Highest(highest)), "{value}");
        }
    }

    #[test]
    fn what_is_no_number_is_named() {
        for (value, error) in [
            ("$", Error::Syntax("empty macro name: \"$\"".to_owned())),
            ("$$$", Error::Syntax("empty macro name: \"$$$\"".to_owned())),
            (
                "a ${}",
                Error::Syntax("empty macro name: \"a ${}\"".to_owned()),
            ),
            (
                "${1$2",
                Error::Syntax("truncated macro reference: \"${1$2\"".to_owned()),
            ),
            (
                "$(1}",
                Error::Syntax("truncated macro reference: \"$(1}\"".to_owned()),
            ),
            (
                "$1y",
                Error::Index("non-numeric replacement index \"1y\"".to_owned()),
            ),
            (
                "${1 }",
                Error::Index("non-numeric replacement index \"1 \"".to_owned()),
            ),
            (
                "${{1}}",
                Error::Index("non-numeric replacement index \"{1}\"".to_owned()),
            ),
            (
                "$0",
                Error::Index("out-of-range replacement index \"0\"".to_owned()),
            ),
            (
                "$00",
                Error::Index("out-of-range replacement index \"00\"".to_owned()),
            ),
        ] {
            assert_eq!(check(value.as_bytes()), Err(error), "{value}");
        }
    }
}
