//! Turns the client's content into records, for cleanup and for a queue file.
//!
//! Follows `tests/spec/qmqp.md`, section 12. Headers are left to `queue::file::header`.

use crate::wire::record::Type;

/// Passes the content, which may be cut at any byte, to `put` line by line. A line of more than `line_limit` bytes
/// becomes several records.
///
/// Envelope lines of a mailbox ("From ") at the top become header lines. If the next line begins with a blank, an empty
/// line is added, so that it does not continue the header.
pub fn records(content: &[Vec<u8>], line_limit: usize, mut put: impl FnMut(Type, &[&[u8]])) {
    let mut at_top = true;
    let mut put_line = |kind, line: &[u8]| {
        if at_top && is_mailbox_line(line) {
            let text = line.split(|&b| b == 0).next().unwrap_or_default();
            put(kind, &[b"X-Mailbox-Line: ", text]);
            return;
        }
        if at_top && line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            put(Type::Norm, &[]);
        }
        at_top = false;
        put(kind, &[line]);
    };
    // The beginning of a line that continues in the next piece, of at most `line_limit` bytes.
    let mut begun = Vec::new();
    for piece in content {
        let mut rest = piece.as_slice();
        while let Some((kind, line)) = next_line(&mut rest, line_limit - begun.len()) {
            if begun.is_empty() {
                put_line(kind, line);
            } else {
                begun.extend_from_slice(line);
                put_line(kind, &begun);
                begun.clear();
            }
        }
        begun.extend_from_slice(rest);
    }
    if !begun.is_empty() {
        put_line(Type::Cont, &begun);
    }
}

/// Takes one record from `rest`: a line (`Norm`) if its LF is found, otherwise as many bytes as there is `room` for.
/// `None` if `rest` ends before both.
fn next_line<'a>(rest: &mut &'a [u8], room: usize) -> Option<(Type, &'a [u8])> {
    let window = rest.get(..=room).unwrap_or(rest);
    let (kind, end, next) = match line_end(window) {
        Some(end) => (Type::Norm, end, end + 1),
        None if window.len() > room => (Type::Cont, room, room),
        None => return None,
    };
    let line = rest.get(..end)?;
    *rest = rest.get(next..)?;
    Some((kind, line))
}

/// The bytes that are compared at once. The compiled loop is as fast as memchr(3) for lines of usual mail, and half as
/// fast for lines of two thousand bytes.
const BLOCK: usize = 32;

fn line_end(bytes: &[u8]) -> Option<usize> {
    let mut blocks = bytes.chunks_exact(BLOCK);
    // No early exit inside a block, so that the compiler can compare the bytes together.
    let has_one = |block: &[u8]| {
        block
            .iter()
            .fold(false, |found, &byte| found | (byte == b'\n'))
    };
    let whole = blocks.position(has_one).unwrap_or(bytes.len() / BLOCK) * BLOCK;
    let rest = bytes.get(whole..).unwrap_or_default();
    Some(whole + rest.iter().position(|&byte| byte == b'\n')?)
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

    fn put(content: &[Vec<u8>], limit: usize) -> Vec<(char, Vec<u8>)> {
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
        let content = content.as_bytes().to_vec();
        put(&[content], limit)
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
        fn a_line_ends_at_its_first_lf(bytes in "[ab\n]{0,9}[ab]{0,200}[b\n]{0,9}") {
            let bytes = bytes.as_bytes();
            let expected = bytes.iter().position(|&byte| byte == b'\n');
            prop_assert_eq!(line_end(bytes), expected);
        }

        #[test]
        fn records_joined_are_the_content(content in "[a-z \n]{0,200}", limit in 1usize..30) {
            let mut joined = Vec::new();
            let at_top = content.starts_with([' ', '\t']);
            let records = put(&[content.clone().into_bytes()], limit);
            for (kind, data) in records.into_iter().skip(usize::from(at_top)) {
                prop_assert!(data.len() <= limit);
                joined.extend(data);
                if kind == 'N' {
                    joined.push(b'\n');
                }
            }
            prop_assert_eq!(joined, content.as_bytes());
        }

        #[test]
        fn where_pieces_are_cut_makes_no_difference(
            content in "(From |[a \t\n]){0,40}",
            cuts in proptest::collection::vec(0usize..9, 0..30),
            limit in 1usize..12,
        ) {
            let mut rest = content.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece.to_vec());
                rest = after;
            }
            pieces.push(rest.to_vec());
            prop_assert_eq!(put(&pieces, limit), put(&[content.into_bytes()], limit));
        }
    }
}
