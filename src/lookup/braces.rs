//! Splits text in braces, for values with blanks and commas, and text in quotes, for keys.
//!
//! Braces nest; quotes and backslashes stay in the text. Follows postconf(5), and Postfix's messages. The meaning of
//! the text is the caller's.

use std::fmt::{self, Display};

use crate::config::lines::is_space;

/// Why text is not properly in braces.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Error<'a> {
    NoOpening(&'a str),
    NoClosing(&'a str),
    AfterClosing(&'a str),
}

impl Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoOpening(text) => write!(f, "no '{{' at start of text in \"{text}\""),
            Error::NoClosing(text) => write!(f, "missing '}}' in \"{text}\""),
            Error::AfterClosing(text) => write!(f, "syntax error after '}}' in \"{text}\""),
        }
    }
}

/// The text inside the braces that enclose `text`, trimmed.
pub(super) fn inside(text: &str) -> Result<&str, Error<'_>> {
    if !text.starts_with('{') {
        return Err(Error::NoOpening(text));
    }
    match closing(text) {
        None => Err(Error::NoClosing(text)),
        Some(end) if end + 1 < text.len() => Err(Error::AfterClosing(text)),
        Some(end) => Ok(trim(text.get(1..end).unwrap_or_default())),
    }
}

/// The position of the brace that closes the first one.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    text.bytes().position(|b| {
        match b {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => return false,
        }
        depth == 0
    })
}

/// Splits the next item off `rest`, at commas and blanks outside of braces.
pub(super) fn next_item<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let begins = rest.bytes().position(|b| !is_separator(b.into()));
    let (_, text) = rest.split_at(begins.unwrap_or(rest.len()));
    let mut depth = 0_usize;
    // The bytes of other characters are none of these.
    let end = text.bytes().position(|b| {
        match b {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            // No separator is a greater byte than the comma.
            _ => return b <= b',' && depth == 0 && is_separator(b.into()),
        }
        false
    });
    let (item, after) = text.split_at(end.unwrap_or(text.len()));
    *rest = after.get(1..).unwrap_or_default();
    (!item.is_empty()).then_some(item)
}

/// The separators of a list.
pub(super) fn is_separator(c: char) -> bool {
    matches!(c, ',' | ' ' | '\t' | '\r' | '\n')
}

/// `text` without the C library's whitespace at its ends.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c| u8::try_from(c).is_ok_and(is_space))
}

/// The first position at which `ends` holds, outside of quotes and not after a backslash, or the length; and whether a
/// quote is open there.
pub(super) fn end_of_key(text: &[u8], ends: impl Fn(u8) -> bool) -> (usize, bool) {
    let (mut quoted, mut escaped) = (false, false);
    let end = text.iter().position(|&b| {
        if escaped {
            escaped = false;
            return false;
        }
        match b {
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ => return !quoted && ends(b),
        }
        false
    });
    (end.unwrap_or(text.len()), quoted)
}
