//! Splits main.cf, list files and table files into logical lines.
//!
//! Empty lines and comments are dropped, and a line that starts with whitespace continues the one before. Lines may
//! have any bytes and any length. Follows `tests/spec/main-cf.md`, section 2, and postconf(5), "the general format of
//! the main.cf file". The meaning of a line is the caller's.

use std::borrow::Cow;

use crate::log::Shown;
use crate::sys::bytes;

/// The length of a misplaced line that is shown.
const SHOWN_LINE: usize = 30;

/// One logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logical<'a> {
    /// Where its first physical line begins.
    pub start: usize,
    /// The number, from 1, of its first physical line.
    pub first_line: usize,
    /// The number of the last physical line read for it, comments after it included.
    pub last_line: usize,
    /// Whether a NUL byte is in one of its lines, or in a comment among them. Postfix reads as far as the NUL.
    pub has_nul: bool,
    /// The bytes of the physical lines without newlines, with leading whitespace.
    pub text: Cow<'a, [u8]>,
}

impl Logical<'_> {
    /// The part of the text that Postfix reads.
    pub fn up_to_nul(&self) -> &[u8] {
        if self.has_nul {
            up_to_nul(&self.text)
        } else {
            &self.text
        }
    }
}

/// What Postfix reads of the text of a line.
pub(super) fn up_to_nul(text: &[u8]) -> &[u8] {
    text.split(|&b| b == 0).next().unwrap_or_default()
}

/// The logical lines of a file, in order. The last one need not end in a newline.
pub fn logical_lines(bytes: &[u8]) -> LogicalLines<'_> {
    lines_after(0, bytes)
}

/// The same of a part of a file that begins with a logical line, after so many physical ones.
pub fn lines_after(line: usize, bytes: &[u8]) -> LogicalLines<'_> {
    LogicalLines {
        length: bytes.len(),
        rest: bytes,
        line,
        has_nul: bytes::position(bytes, 0).is_some(),
    }
}

/// The first logical line of these bytes.
pub(super) fn logical_line(bytes: &[u8]) -> Option<Logical<'_>> {
    let mut lines = LogicalLines {
        length: bytes.len(),
        rest: bytes,
        line: 0,
        has_nul: true,
    };
    lines.next()
}

#[derive(Debug)]
pub struct LogicalLines<'a> {
    length: usize,
    rest: &'a [u8],
    /// Physical lines read so far.
    line: usize,
    /// Whether there is a NUL in any of them: most files have none, and no line has to be looked through for one.
    has_nul: bool,
}

impl<'a> LogicalLines<'a> {
    /// The number of physical lines that have been read, with those before this part of the file.
    pub fn lines_read(&self) -> usize {
        self.line
    }

    /// The next physical line, with its newline.
    #[inline]
    fn physical(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = bytes::position(self.rest, b'\n').map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.line += 1;
        Some(line)
    }

    /// Adds the physical lines that belong to the logical line besides its first one.
    fn join(&mut self, logical: &mut Logical<'a>) {
        while self.rest.first().is_some_and(|&b| !begins_logical(b)) {
            let Some(line) = self.physical() else {
                break;
            };
            if self.has_nul {
                logical.has_nul |= line.contains(&0);
            }
            if has_text(line) {
                let text = logical.text.to_mut();
                text.extend_from_slice(without_newline(line));
            }
        }
        logical.last_line = self.line;
    }
}

impl<'a> Iterator for LogicalLines<'a> {
    type Item = Logical<'a>;

    fn next(&mut self) -> Option<Logical<'a>> {
        let mut has_nul = false;
        let (start, first) = loop {
            let start = self.length - self.rest.len();
            let line = self.physical()?;
            if self.has_nul {
                has_nul |= line.contains(&0);
            }
            if has_text(line) {
                break (start, line);
            }
        };
        let mut logical = Logical {
            start,
            first_line: self.line,
            last_line: self.line,
            has_nul,
            text: Cow::Borrowed(without_newline(first)),
        };
        if self.rest.first().is_some_and(|&b| !begins_logical(b)) {
            self.join(&mut logical);
        }
        Some(logical)
    }
}

fn without_newline(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

/// Whether a physical line is neither blank nor a comment.
fn has_text(line: &[u8]) -> bool {
    match line.first() {
        None | Some(b'#') => false,
        Some(b) if !is_space(*b) => true,
        Some(_) => line
            .iter()
            .find(|b| !is_space(**b))
            .is_some_and(|b| *b != b'#'),
    }
}

/// Whether a physical line with this first byte is the first one of a logical line, with any line before it.
fn begins_logical(first: u8) -> bool {
    first != b'#' && !is_space(first)
}

/// Where the last logical line begins in what has been read of a file so far, if that is at `from` or later: the lines
/// before it are whole.
pub fn last_beginning(bytes: &[u8], from: usize) -> Option<usize> {
    let from = from.max(1);
    let before = bytes.get(from - 1..)?;
    let at = before
        .windows(2)
        .rposition(|two| matches!(two, [b'\n', first] if begins_logical(*first)))?;
    Some(from + at)
}

/// The error of a line that continues no other one, in the file `path`.
pub fn misplaced(path: &str, text: &[u8]) -> Option<String> {
    text.first().filter(|&&b| is_space(b))?;
    let (shown, more) = match text.get(..SHOWN_LINE) {
        Some(start) if text.len() > SHOWN_LINE => (start, "..."),
        _ => (text, ""),
    };
    let shown = Shown(shown);
    Some(format!(
        "{path}: logical line must not start with whitespace: \"{shown}{more}\""
    ))
}

/// isspace(3) of the C locale: unlike `is_ascii_whitespace` it has the vertical tab.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Splits `text` before its first byte that does not belong.
pub(super) fn split_where(text: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|&b| !belongs(b));
    text.split_at(end.unwrap_or(text.len()))
}

/// `text` without whitespace at its start.
pub(super) fn skip_space(text: &[u8]) -> &[u8] {
    split_where(text, is_space).1
}

/// `text` without whitespace at either end.
pub fn trim(text: &[u8]) -> &[u8] {
    let mut text = text;
    while let Some((_, rest)) = text.split_first().filter(|(b, _)| is_space(**b)) {
        text = rest;
    }
    while let Some((_, rest)) = text.split_last().filter(|(b, _)| is_space(**b)) {
        text = rest;
    }
    text
}

/// The items of a list without quoting: separated by commas and whitespace.
pub fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == b',' || is_space(b))
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(file: &str) -> Vec<(usize, String)> {
        logical_lines(file.as_bytes())
            .map(|l| (l.first_line, String::from_utf8_lossy(&l.text).into_owned()))
            .collect()
    }

    fn one(line: usize, text: &str) -> Vec<(usize, String)> {
        vec![(line, text.to_owned())]
    }

    #[test]
    fn comments_and_empty_lines_do_not_end_a_continued_value() {
        assert_eq!(texts("a = 1\n\n# c\n  2\n"), one(1, "a = 1  2"));
        assert_eq!(texts("\n# top\na = 1\n   # c\n\t2"), one(3, "a = 1\t2"));
    }

    #[test]
    fn the_next_line_that_starts_with_text_starts_a_logical_line() {
        let both = vec![(1, "a = 1".to_owned()), (4, "b = 2".to_owned())];
        assert_eq!(texts("a = 1\n# c\n\nb = 2\n"), both);
    }

    #[test]
    fn a_hash_after_text_is_text() {
        assert_eq!(texts("a = b # c\n"), one(1, "a = b # c"));
    }

    #[test]
    fn a_file_may_end_without_a_newline_or_hold_nothing() {
        assert_eq!(texts("a = 1"), one(1, "a = 1"));
        assert_eq!(texts(""), []);
        assert_eq!(texts("# a\n \n\t\n\n#b"), []);
    }

    #[test]
    fn whitespace_at_the_top_is_left_to_the_reader() {
        assert_eq!(texts("  a = 1\nb = 2\n")[0], (1, "  a = 1".to_owned()));
    }

    #[test]
    fn a_carriage_return_is_kept_and_alone_on_a_line_is_blank() {
        assert_eq!(texts("a = 1\r\n\r\n b\r\n"), one(1, "a = 1\r b\r"));
    }

    #[test]
    fn a_nul_is_noticed_in_a_comment_too() {
        let lines: Vec<Logical> = logical_lines(b"a = 1\nb = 2\n#\0\n  3\nc = \0\n").collect();
        let seen: Vec<_> = lines
            .iter()
            .map(|l| (l.first_line, l.last_line, l.has_nul))
            .collect();
        assert_eq!(seen, [(1, 1, false), (2, 4, true), (5, 5, true)]);
    }

    #[test]
    fn items_are_separated_by_commas_and_any_whitespace() {
        let all: Vec<&[u8]> = items(b" a,,b\t\x0bc , ").collect();
        assert_eq!(all, [b"a", b"b", b"c"]);
    }

    proptest! {
        #[test]
        fn every_byte_of_text_survives_once_and_in_order(file in "[a# \\n\\r\u{e9}\0]{0,60}") {
            let kept: Vec<u8> = logical_lines(file.as_bytes()).flat_map(|l| l.text.into_owned()).collect();
            let lines = file.split('\n').filter(|l| {
                let first = l.bytes().find(|&b| !is_space(b));
                first.is_some_and(|b| b != b'#')
            });
            prop_assert_eq!(kept, lines.collect::<String>().into_bytes());
        }
    }
}
