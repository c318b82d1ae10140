//! The client's content, held back and then as records, the same for cleanup and for a queue file.
//!
//! Authority: section 12 of the QMQP page of the specification.

use std::io::BufRead;

use crate::wire::record::Type;

/// Content that is held back to the end of the request, since the envelope has to be in front of it.
///
/// Unlike Postfix, which reserves the length that is announced: it grows with what arrives.
#[derive(Debug, Default)]
pub struct Held {
    bytes: Vec<u8>,
    out_of_memory: bool,
}

impl Held {
    /// Adds a piece. Once there is no memory for one, all of it is dropped.
    pub fn add(&mut self, piece: &[u8]) {
        if self.out_of_memory {
            return;
        }
        if self.bytes.try_reserve(piece.len()).is_err() {
            self.out_of_memory = true;
            self.bytes = Vec::new();
            return;
        }
        self.bytes.extend_from_slice(piece);
    }

    /// Everything that was added, or nothing where that could not be held.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        (!self.out_of_memory).then(|| std::mem::take(&mut self.bytes))
    }
}

/// Hands `content` to `put` line by line; a line of more than `line_limit` bytes becomes several records.
///
/// Envelope lines of a mailbox ("From ") at the top are made header lines. If what follows begins with a blank it
/// would continue the header in front of it, so an empty line is put between.
pub fn records(content: &[u8], line_limit: usize, mut put: impl FnMut(Type, &[&[u8]])) {
    let mut rest = content;
    let mut at_top = true;
    while !rest.is_empty() {
        let (line, kind) = next_line(&mut rest, line_limit);
        if at_top && is_mailbox_line(line) {
            let text = line.split(|&b| b == 0).next().unwrap_or_default();
            put(kind, &[b"X-Mailbox-Line: ", text]);
            continue;
        }
        if at_top && line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            put(Type::Norm, &[]);
        }
        at_top = false;
        put(kind, &[line]);
    }
}

/// Takes a line off `rest` that is not empty: `Norm` where its LF was found, else as much of it as the limit allows.
fn next_line<'a>(rest: &mut &'a [u8], limit: usize) -> (&'a [u8], Type) {
    let window = rest.get(..limit.saturating_add(1)).unwrap_or(rest);
    // skip_until is the standard library's door to memchr; reading from a slice cannot fail.
    let found = (&mut &*window).skip_until(b'\n').unwrap_or(window.len());
    let (taken, after) = rest.split_at(found);
    if let Some(line) = taken.strip_suffix(b"\n") {
        *rest = after;
        return (line, Type::Norm);
    }
    let (line, after) = rest.split_at(found.min(limit));
    *rest = after;
    (line, Type::Cont)
}

fn is_mailbox_line(line: &[u8]) -> bool {
    let quotes = line.iter().take_while(|&&b| b == b'>').count();
    line.iter().skip(quotes).take(5).eq(b"From ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record::{Writer, get};
    use proptest::prelude::*;

    fn put(content: &[u8], limit: usize) -> Vec<(char, Vec<u8>)> {
        let mut writer = Writer::new(Vec::new(), Vec::new());
        records(content, limit, |kind, pieces| writer.put(kind, pieces));
        writer.finish().unwrap();
        let mut bytes = writer.sink().as_slice();
        let mut found = Vec::new();
        while let Some((kind, data, rest)) = get(bytes) {
            found.push((char::from(kind), data.to_vec()));
            bytes = rest;
        }
        found
    }

    fn shown(content: &str, limit: usize) -> String {
        put(content.as_bytes(), limit)
            .into_iter()
            .map(|(kind, data)| format!("{kind}({})", String::from_utf8(data).unwrap()))
            .collect()
    }

    #[test]
    fn lines_end_at_lf_or_at_the_limit() {
        for (content, expected) in [
            ("", ""),
            ("\n", "N()"),
            ("a\nb", "N(a)L(b)"),
            ("a\n\nb\n", "N(a)N()N(b)"),
            ("abcd\n", "N(abcd)"),
            ("abcde\n", "L(abcd)N(e)"),
            ("abcdefgh", "L(abcd)L(efgh)"),
            ("abcdefgh\n", "L(abcd)N(efgh)"),
            ("a\r\n", "N(a\r)"),
        ] {
            assert_eq!(shown(content, 4), expected, "{content:?}");
        }
    }

    #[test]
    fn mailbox_lines_at_the_top_become_headers() {
        assert_eq!(
            shown("From a\n>>From b\nS: x\nFrom c\n", 99),
            "N(X-Mailbox-Line: From a)N(X-Mailbox-Line: >>From b)N(S: x)N(From c)"
        );
        assert_eq!(shown("From a\0b\nx\n", 99), "N(X-Mailbox-Line: From a)N(x)");
        assert_eq!(shown("From: a\n", 99), "N(From: a)");
    }

    #[test]
    fn a_blank_in_front_cannot_continue_our_header() {
        assert_eq!(shown(" x\n y\n", 99), "N()N( x)N( y)");
        assert_eq!(shown("\tx", 99), "N()L(\tx)");
        assert_eq!(
            shown("From a\n x\n", 99),
            "N(X-Mailbox-Line: From a)N()N( x)"
        );
    }

    proptest! {
        #[test]
        fn records_joined_are_the_content(content in "[a-z \n]{0,200}", limit in 1usize..30) {
            let mut joined = Vec::new();
            let at_top = content.starts_with([' ', '\t']);
            for (kind, data) in put(content.as_bytes(), limit).into_iter().skip(usize::from(at_top)) {
                prop_assert!(data.len() <= limit);
                joined.extend(data);
                if kind == 'N' {
                    joined.push(b'\n');
                }
            }
            prop_assert_eq!(joined, content.as_bytes());
        }
    }
}
