//! Tables whose files are in memory, and lists that log nothing, for tests and fuzzing.
//!
//! The formats are left to the other files of `lookup`.

use std::io;

use super::Error;
use super::cdb::{Cdb, Pages};
use super::cidr::Networks;
use super::match_list::MatchList;
use super::regexp::{self, Expressions};
use super::rules::RuleTable;
use super::table::{ClientKeys, ParentStyle, Problem, Table};
use super::tables::Tables;
use super::text::{Format, Source, TextTable};
use super::texthash::Texthash;

/// The file's name in messages.
const FILE: &str = "F";

/// A table.
#[derive(Debug)]
pub struct InMemory(Box<dyn Table>);

impl InMemory {
    pub fn cidr(file: &[u8]) -> InMemory {
        InMemory::text("cidr map F", file, RuleTable::<Networks>::new())
    }

    pub fn regexp(file: &[u8]) -> InMemory {
        InMemory::text("regexp map F", file, RuleTable::<Expressions>::new())
    }

    /// `utf8` is smtputf8_enable.
    pub fn texthash(file: &[u8], utf8: bool) -> InMemory {
        InMemory::text(FILE, file, Texthash { utf8 })
    }

    fn text(label: &str, file: &[u8], format: impl Format + 'static) -> InMemory {
        let source = Source::in_memory(label, file);
        InMemory(Box::new(TextTable::new("test:F", source, format)))
    }

    pub fn cdb(file: &[u8]) -> InMemory {
        let size = u64::try_from(file.len()).unwrap_or(u64::MAX);
        let bytes = Bytes(file.to_vec());
        InMemory(Box::new(Cdb::over(("cdb:F", FILE), bytes, size)))
    }

    /// The value of `key`, or the table's warnings if the lookup fails.
    pub fn find(&self, key: &str) -> Result<Option<Vec<u8>>, Vec<String>> {
        self.find_of(None, None, key)
    }

    /// The same with a client's name and address, which will be looked up too.
    pub fn find_of(
        &self,
        name: Option<&str>,
        addr: Option<&str>,
        key: &str,
    ) -> Result<Option<Vec<u8>>, Vec<String>> {
        let found = self.0.find(key, &ClientKeys { name, addr });
        found.map_err(|Problem(warnings)| warnings)
    }

    /// Reads the whole table before the first lookup.
    pub fn take_snapshot(&self) {
        self.0.take_snapshot();
    }
}

/// A list as from [`MatchList::from_patterns`], which logs nothing: a process may log few errors before it has to end.
pub fn match_list(
    patterns: &str,
    parents: ParentStyle,
    tables: &mut Tables,
) -> Result<MatchList, Error> {
    MatchList::parse("qmqpd_authorized_clients", patterns, parents, tables).1
}

/// Splits a line of a regexp table.
pub fn split_regexp(line: &[u8]) -> Result<regexp::Line<'_>, String> {
    regexp::split(line)
}

/// The bytes of a database.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl Pages for Bytes {
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let rest = usize::try_from(at).ok().and_then(|at| self.0.get(at..));
        io::Read::read_exact(&mut rest.unwrap_or_default(), buffer)
    }
}
