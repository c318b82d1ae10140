//! `cdb:FILE`: D. J. Bernstein's constant database, FILE.cdb.
//!
//! A directory of 256 hash tables is at the beginning, the tables are at the end, the records are between them. A
//! lookup reads one entry of the directory, some slots of one table, and the records with the same hash: a few reads
//! for any size of file. Each position and each length in the file is compared with the file's size before it is used.
//! Follows <https://cr.yp.to/cdb/cdb.txt>, and `tests/spec/client-access.md`, section 4.2. Values are the caller's.

use std::cell::Cell;
use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use super::Note;
use super::database::Database;
use super::table::{ClientKeys, Keys, Problem, Reason, Table};
use crate::log::error_text;

/// The hash tables of the directory.
const TABLES: u32 = 256;

/// The bytes of a pair of numbers: an entry of the directory, a slot of a table, the head of a record.
const PAIR: u64 = 8;

/// The slots that are read at once. Tables are half empty, so that the empty slot at the end of a search is near.
const SLOTS_AT_ONCE: u32 = 32;

/// The longest value. Lists do not use values; a longer one is damage.
const VALUE_LIMIT: u32 = 1024 * 1024;

/// A source file that is newer than its database is reported after this time: an administrator may be about to run
/// postmap.
const GRACE: Duration = Duration::from_secs(100);

/// Whether the file has a NUL after each key and value. postmap(1) can write either form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// No key has been found yet.
    Unknown,
    WithNul,
    Plain,
}

/// A file, or its substitute in a test.
pub(super) trait Pages: std::fmt::Debug {
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;

    fn has_changed(&self) -> bool {
        false
    }

    fn close(&self) {}
}

impl Pages for Database {
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        Database::read_exact_at(self, buffer, at)
    }

    fn has_changed(&self) -> bool {
        Database::has_changed(self)
    }

    fn close(&self) {
        Database::close(self);
    }
}

/// A constant database.
#[derive(Debug)]
pub(super) struct Cdb<F = Database> {
    name: String,
    /// FILE, without `.cdb`.
    path: String,
    file: F,
    size: u64,
    form: Cell<Form>,
}

impl Cdb {
    pub(super) fn new(name: &str, path: &str, notes: &mut Vec<Note>) -> Result<Cdb, Reason> {
        let file = Database::at(format!("{path}.cdb"))?;
        notes.extend(older_than_source(&file, path).map(Note::Warning));
        let size = file.size;
        Ok(Cdb::over((name, path), file, size))
    }
}

impl<F> Cdb<F> {
    pub(super) fn over((name, path): (&str, &str), file: F, size: u64) -> Cdb<F> {
        Cdb {
            name: name.to_owned(),
            path: path.to_owned(),
            file,
            size,
            form: Cell::new(Form::Unknown),
        }
    }
}

/// A warning about a database that is older than its source.
fn older_than_source(database: &Database, source: &str) -> Option<String> {
    let written = database.written?;
    let edited = fs::metadata(source).ok()?.modified().ok()?;
    let settled = SystemTime::now()
        .duration_since(edited)
        .is_ok_and(|age| age > GRACE);
    let database = &database.path;
    (edited > written && settled)
        .then(|| format!("database {database} is older than source file {source}"))
}

impl<F: Pages> Table for Cdb<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        Keys::Fixed
    }

    fn find(&self, key: &str, _: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem> {
        self.find_in_form(key).map_err(|error| {
            let (path, error) = (&self.path, error_text(&error));
            Problem::from(format!("error reading {path}.cdb: {error}"))
        })
    }

    fn has_changed(&self) -> bool {
        self.file.has_changed()
    }

    fn close(&self) {
        self.file.close();
    }
}

impl<F: Pages> Cdb<F> {
    /// Looks for the key with a NUL, then for the key without. The first form with a result is the file's form.
    fn find_in_form(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        if self.form.get() != Form::Plain {
            if let Some(mut value) = self.lookup(&[key.as_bytes(), b"\0"].concat())? {
                self.form.set(Form::WithNul);
                if value.last() == Some(&0) {
                    value.pop();
                }
                return Ok(Some(value));
            }
        }
        if self.form.get() != Form::WithNul {
            if let Some(value) = self.lookup(key.as_bytes())? {
                self.form.set(Form::Plain);
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The value of the first record with this key.
    fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let hash = hash(key);
        let (table, slots) = self.pair(u64::from(hash % TABLES) * PAIR)?;
        if slots == 0 {
            return Ok(None);
        }
        let mut slot = (hash / TABLES) % slots;
        let mut left = slots;
        while left > 0 {
            let count = SLOTS_AT_ONCE.min(left).min(slots - slot);
            let at = u64::from(table) + u64::from(slot) * PAIR;
            for pair in self.bytes(at, count.saturating_mul(8))?.chunks_exact(8) {
                let (own, record) = numbers(pair).ok_or_else(damaged)?;
                if record == 0 {
                    return Ok(None);
                }
                if own == hash {
                    if let Some(value) = self.record(record, key)? {
                        return Ok(Some(value));
                    }
                }
            }
            left -= count;
            slot = (slot + count) % slots;
        }
        Ok(None)
    }

    /// The value of the record at `at`, if it has this key.
    fn record(&self, at: u32, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let (key_length, value_length) = self.pair(at.into())?;
        if u32::try_from(key.len()) != Ok(key_length) {
            return Ok(None);
        }
        let at = u64::from(at) + PAIR;
        if self.bytes(at, key_length)? != key {
            return Ok(None);
        }
        if value_length > VALUE_LIMIT {
            return Err(damaged());
        }
        let value = self.bytes(at + u64::from(key_length), value_length)?;
        Ok(Some(value))
    }

    fn pair(&self, at: u64) -> io::Result<(u32, u32)> {
        numbers(&self.bytes(at, 8)?).ok_or_else(damaged)
    }

    /// Reads bytes that must exist. No memory is reserved for bytes beyond the end of the file.
    fn bytes(&self, at: u64, length: u32) -> io::Result<Vec<u8>> {
        let end = at.checked_add(length.into());
        if end.is_none_or(|end| end > self.size) {
            return Err(damaged());
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        match self.file.read_exact_at(&mut bytes, at) {
            // The file has shrunk since it was opened.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(damaged()),
            result => result.map(|()| bytes),
        }
    }
}

/// The text of Postfix's library for a damaged file.
fn damaged() -> io::Error {
    io::Error::from(nix::errno::Errno::EPROTO)
}

fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381, |hash: u32, &byte| {
        hash.wrapping_shl(5).wrapping_add(hash) ^ u32::from(byte)
    })
}

/// Two little-endian numbers.
fn numbers(bytes: &[u8]) -> Option<(u32, u32)> {
    let (first, second) = bytes.split_first_chunk()?;
    let second = second.first_chunk()?;
    Some((u32::from_le_bytes(*first), u32::from_le_bytes(*second)))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs::File;

    use proptest::prelude::*;

    use super::*;

    /// A file in memory that counts what is read of it.
    #[derive(Debug)]
    struct Memory {
        bytes: Vec<u8>,
        reads: RefCell<Vec<usize>>,
    }

    impl Pages for Memory {
        fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
            self.reads.borrow_mut().push(buffer.len());
            let from = usize::try_from(at).expect("small");
            let bytes = self.bytes.get(from..from + buffer.len());
            buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    fn cdb(bytes: Vec<u8>) -> Cdb<Memory> {
        let size = bytes.len() as u64;
        let file = Memory {
            bytes,
            reads: RefCell::default(),
        };
        Cdb::over(("cdb:F", "F"), file, size)
    }

    /// Writes a database as cdb.txt describes it.
    fn make(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut file = vec![0; 2048];
        let mut tables: Vec<Vec<(u32, u32)>> = vec![Vec::new(); 256];
        let number = |length: usize| u32::try_from(length).expect("small");
        for (key, value) in entries {
            let hash = hash(key);
            tables[(hash % 256) as usize].push((hash, number(file.len())));
            file.extend(number(key.len()).to_le_bytes());
            file.extend(number(value.len()).to_le_bytes());
            file.extend(key);
            file.extend(value);
        }
        for (i, table) in tables.iter().enumerate() {
            let mut slots = vec![(0, 0); table.len() * 2];
            for &(hash, at) in table {
                let mut slot = (hash / 256) as usize % slots.len();
                while slots[slot].1 != 0 {
                    slot = (slot + 1) % slots.len();
                }
                slots[slot] = (hash, at);
            }
            let start = number(file.len()).to_le_bytes();
            file[i * 8..i * 8 + 4].copy_from_slice(&start);
            file[i * 8 + 4..i * 8 + 8].copy_from_slice(&number(slots.len()).to_le_bytes());
            for (hash, at) in slots {
                file.extend(hash.to_le_bytes());
                file.extend(at.to_le_bytes());
            }
        }
        file
    }

    fn entry(key: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
        (key.into(), value.into())
    }

    #[test]
    fn both_forms_are_read_and_the_first_that_finds_something_stays() {
        let plain = cdb(make(&[entry("a", "x"), entry("b\0", "y\0")]));
        assert_eq!(
            plain.find("a", &ClientKeys::default()),
            Ok(Some(b"x".to_vec()))
        );
        assert_eq!(plain.find("b", &ClientKeys::default()), Ok(None));
        let with_nul = cdb(make(&[entry("a", "x"), entry("b\0", "y\0")]));
        assert_eq!(
            with_nul.find("b", &ClientKeys::default()),
            Ok(Some(b"y".to_vec()))
        );
        assert_eq!(with_nul.find("a", &ClientKeys::default()), Ok(None));
    }

    #[test]
    fn a_lookup_among_many_keys_takes_few_reads() {
        let entries: Vec<_> = (0..20_000).map(|i| entry(&format!("k{i}"), "v")).collect();
        let table = cdb(make(&entries));
        for i in (0..20_000).step_by(97) {
            assert_eq!(
                table.find(&format!("k{i}"), &ClientKeys::default()),
                Ok(Some(b"v".to_vec()))
            );
            table.form.set(Form::Unknown);
            let reads = table.file.reads.take();
            assert!(
                reads.len() < 12 && reads.iter().sum::<usize>() < 2000,
                "{reads:?}"
            );
        }
    }

    #[test]
    fn a_file_that_is_made_again_has_changed() {
        let path = std::env::temp_dir().join(format!("qmqpd-cdb-{}", std::process::id()));
        let database = path.with_extension("cdb");
        fs::write(&database, make(&[])).expect("file");
        let path = path.to_str().expect("UTF-8");
        let table = Cdb::new("cdb:F", path, &mut Vec::new()).expect("table");
        assert!(!table.has_changed());
        let file = File::options().append(true).open(&database).expect("file");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("time");
        assert!(table.has_changed());
        let table = Cdb::new("cdb:F", path, &mut Vec::new()).expect("table");
        fs::remove_file(&database).expect("removed");
        assert!(table.has_changed());
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        for bytes in [&b""[..], &[0xff; 2048], &[1; 4096]] {
            let table = cdb(bytes.to_vec());
            let problem = table
                .find("a", &ClientKeys::default())
                .expect_err("damaged");
            assert_eq!(problem.0, ["error reading F.cdb: Protocol error"]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table_or_an_error(start: Vec<u8>, key in "[a-c]{0,2}") {
            let mut bytes = start.repeat(1 + 4096 / (start.len() + 1));
            drop(cdb(bytes.clone()).find(&key, &ClientKeys::default()));
            bytes.splice(0..0, [8, 0, 0, 0, 255, 255, 0, 0].repeat(256));
            drop(cdb(bytes).find(&key, &ClientKeys::default()));
        }

        #[test]
        fn a_changed_byte_does_no_harm(at in 0_usize..4000, byte: u8, key in "[a-c]{1,2}") {
            let entries = ["a", "b", "c", "aa", "ab", "cc"].map(|key| entry(key, "value"));
            let mut bytes = make(&entries);
            let at = at % bytes.len();
            bytes[at] = byte;
            drop(cdb(bytes).find(&key, &ClientKeys::default()));
        }

        #[test]
        fn the_first_record_with_the_key_counts(
            entries in proptest::collection::vec(("[a-c]{1,2}", "[a-z]{0,3}"), 0..40), key in "[a-c]{1,2}"
        ) {
            let all: Vec<_> = entries.iter().map(|(k, v)| entry(k, v)).collect();
            let expected = entries.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone().into_bytes());
            prop_assert_eq!(cdb(make(&all)).find(&key, &ClientKeys::default()), Ok(expected));
        }
    }
}
