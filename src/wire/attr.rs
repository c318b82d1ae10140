//! Attribute lists as Postfix's programs exchange them: name NUL value NUL ..., ended by an empty name.
//!
//! Authority: `tests/spec/cleanup.md`, section 2.1.

use std::io::{self, Read};

/// The longest list that is read, in bytes. Those of cleanup have a few hundred, more only where a milter has a long
/// reason.
pub const LIST_LIMIT: usize = 256 * 1024;

/// How much is read at a time, in bytes: most lists have less than a hundred.
const PIECE: usize = 512;

/// Names and values in the order in which they came.
pub type List = Vec<(Vec<u8>, Vec<u8>)>;

/// Why there is no list.
#[derive(Debug)]
pub enum Error {
    /// The peer closed the connection before it sent a byte.
    Closed,
    /// It closed the connection inside a list, where a name or a value was due.
    Truncated(Part),
    /// Longer than [`LIST_LIMIT`].
    TooLong,
    Io(io::Error),
}

/// What a list consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Name,
    Value,
}

/// Appends one attribute.
pub fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.extend_from_slice(value.as_bytes());
    out.push(0);
}

/// Appends the end of the list.
pub fn put_end(out: &mut Vec<u8>) {
    out.push(0);
}

/// Reads one list. What the peer sends right behind it is lost: the peers that this serves wait for an answer first.
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

/// The list that `bytes` begin with, if all of it is there.
fn parse(bytes: &[u8]) -> Option<List> {
    let mut list = List::new();
    let mut strings = bytes.split(|&b| b == 0);
    // What follows the last NUL is not a string yet: `split` gives it out last, so each string needs a successor.
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
