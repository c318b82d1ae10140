//! `cdb:` tables: files as they should be, damaged ones and others, against a reader with no regard for the disk.

use crate::lookup::in_memory::InMemory;

use super::input::Input;
use super::surroundings::with_log;

/// A key, entries to make a file of, places to damage it in; what is left replaces the file where it is not empty.
pub fn cdb(data: &[u8]) {
    let mut input = Input(data);
    let other = input.data().to_vec();
    let entries: Vec<_> = (0..input.byte() % 16)
        .map(|_| (input.data().to_vec(), input.data().to_vec()))
        .collect();
    let mut file = make(&entries);
    let keys = entries.iter().map(|(key, _)| key).chain([&other]);
    let keys: Vec<&str> = keys
        .filter_map(|key| std::str::from_utf8(key).ok())
        .collect();
    for key in &keys {
        let expected = expected(&entries, key.as_bytes());
        assert_eq!(with_log(|| InMemory::cdb(&file).find(key)), Ok(expected));
    }

    for _ in 0..input.byte() % 16 {
        let at = usize::from(u16::from_le_bytes([input.byte(), input.byte()])) % file.len();
        file[at] = input.byte();
    }
    if !input.0.is_empty() {
        file = input.0.to_vec();
    }
    for key in &keys {
        let found = with_log(|| InMemory::cdb(&file).find(key));
        match find(&file, key.as_bytes()) {
            Ok(value) => assert_eq!(found, Ok(value)),
            Err(Damaged) => assert_eq!(found.unwrap_err(), ["error reading F.cdb: Protocol error"]),
        }
    }
}

/// The value of the first entry with the key and a NUL, else of the first with the key alone.
fn expected(entries: &[(Vec<u8>, Vec<u8>)], key: &[u8]) -> Option<Vec<u8>> {
    let value = |key: &[u8]| {
        entries
            .iter()
            .find(|(own, _)| own == key)
            .map(|(_, value)| value.clone())
    };
    let with_nul = value(&[key, b"\0"].concat());
    with_nul.map(without_nul).or_else(|| value(key))
}

fn without_nul(mut value: Vec<u8>) -> Vec<u8> {
    if value.last() == Some(&0) {
        value.pop();
    }
    value
}

/// A file with these entries, tables twice as large as need be.
fn make(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut file = vec![0; 2048];
    let mut tables = vec![Vec::new(); 256];
    for (key, value) in entries {
        let hash = hash(key);
        tables[hash as usize % 256].push((hash, file.len()));
        put(&mut file, key.len());
        put(&mut file, value.len());
        file.extend_from_slice(key);
        file.extend_from_slice(value);
    }
    for (number, records) in tables.iter().enumerate() {
        let mut slots = vec![(0, 0); records.len() * 2];
        for &(hash, at) in records {
            let mut slot = (hash as usize >> 8) % slots.len();
            while slots[slot].1 != 0 {
                slot = (slot + 1) % slots.len();
            }
            slots[slot] = (hash, at);
        }
        let mut head = Vec::new();
        put(&mut head, file.len());
        put(&mut head, slots.len());
        file[number * 8..number * 8 + 8].copy_from_slice(&head);
        for (hash, at) in slots {
            file.extend_from_slice(&hash.to_le_bytes());
            put(&mut file, at);
        }
    }
    file
}

fn put(file: &mut Vec<u8>, number: usize) {
    file.extend_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
}

fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381, |hash: u32, &byte| {
        hash.wrapping_mul(33) ^ u32::from(byte)
    })
}

/// The file contradicts itself.
struct Damaged;

fn find(file: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, Damaged> {
    match lookup(file, &[key, b"\0"].concat())? {
        Some(value) => Ok(Some(without_nul(value))),
        None => lookup(file, key),
    }
}

fn lookup(file: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, Damaged> {
    let hash = hash(key);
    let [table, slots] = pair(file, hash as usize % 256 * 8)?;
    for i in 0..slots {
        let slot = ((hash as usize >> 8) % slots + i) % slots;
        // The slots are read by 32, as far as they go: beyond the end of the file there are none.
        if i % 32 == 0 || slot == 0 {
            let run = (slots - slot).min(32 - i % 32).min(slots - i);
            pair(file, table + (slot + run - 1) * 8)?;
        }
        let [own, record] = pair(file, table + slot * 8)?;
        if record == 0 {
            return Ok(None);
        }
        if own == hash as usize {
            if let Some(value) = value(file, record, key)? {
                return Ok(Some(value));
            }
        }
    }
    Ok(None)
}

fn value(file: &[u8], at: usize, key: &[u8]) -> Result<Option<Vec<u8>>, Damaged> {
    let [key_length, length] = pair(file, at)?;
    if key_length != key.len() {
        return Ok(None);
    }
    let own = file.get(at + 8..at + 8 + key_length).ok_or(Damaged)?;
    if own != key {
        return Ok(None);
    }
    let value = file.get(at + 8 + key_length..).ok_or(Damaged)?;
    if length > 1 << 20 {
        return Err(Damaged);
    }
    Ok(Some(value.get(..length).ok_or(Damaged)?.to_vec()))
}

fn pair(file: &[u8], at: usize) -> Result<[usize; 2], Damaged> {
    let bytes = file.get(at..at + 8).ok_or(Damaged)?;
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    Ok([number(0), number(4)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random::{self, Random};

    fn text(random: &mut Random) -> Vec<u8> {
        let text = random.text(3, &["a", "b", "c", "de", "fgh", "\0"]);
        let mut out = vec![u8::try_from(text.len()).unwrap(), 0];
        out.extend(text);
        out
    }

    #[test]
    fn cdb_tables_are_read_as_without_regard_for_the_disk() {
        random::run("cdb", cdb, |random| {
            let mut input = text(random);
            let entries = random.byte() % 16;
            input.push(entries);
            for _ in 0..entries {
                input.extend(text(random));
                input.extend(text(random));
            }
            let places = random.byte() % 4;
            input.push(places);
            for _ in 0..places {
                input.extend([random.byte(), random.byte() % 10, random.byte()]);
            }
            input
        });
    }
}
