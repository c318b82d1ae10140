//! Reads and writes the attribute lists of Postfix's programs: name NUL value NUL ..., ended by an empty name.
//!
//! Follows `tests/spec/cleanup.md`, section 2.1. Names and values are left to the caller.

use std::io::{self, Read};

/// The longest list that is read, in bytes. cleanup's lists have a few hundred bytes, and more only for a milter's long
/// reason.
pub const LIST_LIMIT: usize = 256 * 1024;

/// The bytes that are read at a time: most lists have less than a hundred.
const PIECE: usize = 512;

/// Names and values in their order.
pub type List = Vec<(Vec<u8>, Vec<u8>)>;

/// Why no list was read.
#[derive(Debug)]
pub enum Error {
    /// The peer closed the connection before it sent a byte.
    Closed,
    /// The peer closed the connection inside a list, before this part.
    Truncated(Part),
    /// The list is longer than [`LIST_LIMIT`].
    TooLong,
    Io(io::Error),
}

/// The parts of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Name,
    Value,
}

pub fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.extend_from_slice(value.as_bytes());
    out.push(0);
}

pub fn put_end(out: &mut Vec<u8>) {
    out.push(0);
}

/// Reads one list. Bytes that arrive with its end are lost: the peers wait for an answer first.
pub fn read<R: Read>(source: &mut R) -> Result<List, Error> {
    let mut bytes = Vec::new();
    let mut piece = [0; PIECE];
    loop {
        let n = match source.read(&mut piece) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::Io(e)),
        };
        if n == 0 {
            return Err(match bytes.iter().filter(|&&b| b == 0).count() {
                _ if bytes.is_empty() => Error::Closed,
                even if even % 2 == 0 => Error::Truncated(Part::Name),
                _ => Error::Truncated(Part::Value),
            });
        }
        bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
        if let Some(list) = parse(&bytes) {
            return Ok(list);
        }
        if bytes.len() > LIST_LIMIT {
            return Err(Error::TooLong);
        }
    }
}

/// The list at the beginning of `bytes`, if it is complete.
fn parse(bytes: &[u8]) -> Option<List> {
    let mut list = List::new();
    let mut strings = bytes.split(|&b| b == 0);
    // The text after the last NUL is no string yet. `split` returns it last, so each string needs a successor.
    let mut current = strings.next()?;
    let mut next = || {
        let string = current;
        current = strings.next()?;
        Some(string)
    };
    loop {
        let name = next()?;
        if name.is_empty() {
            return Some(list);
        }
        let value = next()?;
        list.push((name.to_vec(), value.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_greeting_is_two_attributes() {
        let greeting = b"protocol\0cleanup_protocol\0queue_id\x002A67E9987AC\0\0";
        let list = read(&mut &greeting[..]).unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[1], (b"queue_id".to_vec(), b"2A67E9987AC".to_vec()));
    }

    #[test]
    fn an_end_before_the_list_and_inside_it_differ() {
        let list = b"status\x000\0\0";
        assert!(matches!(read(&mut &b""[..]), Err(Error::Closed)));
        for cut in 1..list.len() {
            let due = if (7..9).contains(&cut) {
                Part::Value
            } else {
                Part::Name
            };
            let Err(Error::Truncated(part)) = read(&mut &list[..cut]) else {
                panic!("{cut}");
            };
            assert_eq!(part, due, "{cut}");
        }
    }

    #[test]
    fn an_endless_list_is_refused() {
        let mut endless = io::repeat(b'x');
        assert!(matches!(read(&mut endless), Err(Error::TooLong)));
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(pairs in proptest::collection::vec(("[a-z_]{1,9}", "[^\0]{0,40}"), 0..9)) {
            let mut out = Vec::new();
            for (name, value) in &pairs {
                put(&mut out, name, value);
            }
            put_end(&mut out);
            let list = read(&mut out.as_slice()).unwrap();
            prop_assert_eq!(list.len(), pairs.len());
            for ((name, value), (n, v)) in pairs.iter().zip(&list) {
                prop_assert_eq!((name.as_bytes(), value.as_bytes()), (n.as_slice(), v.as_slice()));
            }
        }

        #[test]
        fn any_bytes_are_a_list_or_an_error(bytes: Vec<u8>) {
            let whole = read(&mut bytes.as_slice());
            prop_assert_eq!(whole.is_ok(), parse(&bytes).is_some());
        }
    }
}
