//! Records, one after the other.

use crate::wire::record::DATA_LIMIT;

use super::content::Record;

/// All records of a message, which has to end where the last one does.
pub fn all(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (record, length) = first(bytes).unwrap();
        records.push(record);
        bytes = &bytes[length..];
    }
    records
}

/// The first record, its length counted bit by bit, and how many bytes it takes.
pub fn first(bytes: &[u8]) -> Option<(Record, usize)> {
    let mut bits = String::new();
    let mut at = 1;
    loop {
        let byte = *bytes.get(at)?;
        at += 1;
        bits.insert_str(0, &format!("{:07b}", byte & 0x7f));
        if byte < 0x80 {
            break;
        }
    }
    let length = usize::from_str_radix(&bits, 2).ok()?;
    if at > 5 || length > DATA_LIMIT {
        return None;
    }
    let data = bytes.get(at..at + length)?.to_vec();
    Some(((bytes[0], data), at + length))
}
