//! Records and attribute lists of any bytes, against obvious readers.

use crate::wire::attr::{self, Error, LIST_LIMIT, Part};
use crate::wire::record;

use super::input::Input;
use super::obvious::attributes::list;
use super::obvious::records::first;
use super::steps::Steps;

/// A byte that says how many bytes come at a time, then the bytes.
pub fn records(data: &[u8]) {
    let mut input = Input(data);
    let step = usize::from(input.byte()).max(1);
    let bytes = input.0;
    let mut rest = bytes;
    while let Some((kind, data, after)) = record::get(rest) {
        let length = rest.len() - after.len();
        assert_eq!(first(rest), Some(((kind, data.to_vec()), length)));
        rest = after;
    }
    assert_eq!(first(rest), None);

    let strings = bytes.iter().filter(|&&b| b == 0).count();
    let found = attr::read(&mut Steps::new(bytes, step));
    match (found, list(bytes)) {
        (found, Some(expected)) => assert_eq!(found.unwrap(), expected),
        (Err(Error::Closed), None) => assert!(bytes.is_empty()),
        (Err(Error::Truncated(part)), None) => {
            let due = if strings % 2 == 0 {
                Part::Name
            } else {
                Part::Value
            };
            assert_eq!((part, bytes.is_empty()), (due, false));
        }
        (Err(Error::TooLong), None) => assert!(bytes.len() > LIST_LIMIT),
        (other, None) => panic!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random;
    use crate::wire::record::{Type, put};

    #[test]
    fn records_and_attributes_are_read_as_by_obvious_readers() {
        random::run("records", records, |random| {
            let mut input = vec![random.byte() % 16];
            if random.below(2) == 0 {
                for _ in 0..random.below(5) {
                    let data = random.bytes(300);
                    put(&mut input, Type::Norm, &[&data]);
                    // A length of nothing, in more bytes than it needs.
                    input.push(b'X');
                    input.extend(vec![0x80; random.below(6)]);
                    input.push(0);
                }
            } else {
                for _ in 0..random.below(5) {
                    attr::put(&mut input, "status", &random.below(99).to_string());
                }
                attr::put_end(&mut input);
            }
            random.damage(&mut input);
            input
        });
    }
}
