//! Text in braces, as main.cf has it where blanks and commas are part of something; and in quotes, as keys have it.
//!
//! Braces nest, quotes and backslashes stay part of what they protect. Authority: postconf(5), and Postfix's own messages.

use std::fmt::{self, Display};

use crate::config::lines::is_space;

/// What is wrong with text that should be in braces.
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

/// What stands between the braces that enclose all of `text`, without blanks at its ends.
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

/// Where the brace is that closes the first one.
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

/// Splits the next item off `rest`, at commas and blanks that are not within braces.
pub(super) fn next_item<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let begins = rest.bytes().position(|b| !is_separator(b.into()));
    let (_, text) = rest.split_at(begins.unwrap_or(rest.len()));
    let mut depth = 0_usize;
    // Bytes of other characters are none of these.
    let end = text.bytes().position(|b| {
        match b {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            // No separator comes after the comma.
            _ => return b <= b',' && depth == 0 && is_separator(b.into()),
        }
        false
    });
    let (item, after) = text.split_at(end.unwrap_or(text.len()));
    *rest = after.get(1..).unwrap_or_default();
    (!item.is_empty()).then_some(item)
}

/// What separates the items of a list.
pub(super) fn is_separator(c: char) -> bool {
    matches!(c, ',' | ' ' | '\t' | '\r' | '\n')
}

/// `text` without whitespace at either end, as the C library has it.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c| u8::try_from(c).is_ok_and(is_space))
}

/// Where the first byte is at which `ends` holds, outside quotes and not after a backslash, else the length; and
/// whether a quote is still open there.
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
