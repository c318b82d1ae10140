//! The tables of a process, each opened once.
//!
//! Small and plain types are read here, one file each; Postfix's postmap(1) reads every other type. A table that cannot
//! be opened stays in its list, and its lookups fail: otherwise the list would continue as if the table were empty.
//! Follows `tests/spec/client-access.md`, section 4.

use std::rc::{Rc, Weak};

use super::cdb::Cdb;
use super::cidr::Networks;
use super::constant::{Fail, Static};
use super::inline::Inline;
use super::postmap::{Postmap, RunAs};
use super::proxy::Proxy;
use super::regexp::Expressions;
use super::rules::RuleTable;
use super::table::{ClientKeys, FLAGS, Keys, ParentStyle, Problem, Reason, Table, unavailable};
use super::texthash::Texthash;
use super::{Note, TableSettings};

/// The tables of this process. A table that is named several times is opened once.
#[derive(Debug)]
pub struct Tables {
    pub(super) settings: TableSettings,
    pub(super) opened: Vec<Rc<dyn Table>>,
    /// The open tables that a program reads.
    programs: Vec<Weak<Postmap>>,
}

impl Tables {
    pub fn new(settings: TableSettings) -> Tables {
        Tables {
            settings,
            opened: Vec::new(),
            programs: Vec::new(),
        }
    }

    /// Closes the tables that are in no list.
    pub fn close_unused(&mut self) {
        self.opened.retain(|table| Rc::strong_count(table) > 1);
    }

    pub fn is_empty(&self) -> bool {
        self.opened.is_empty()
    }

    /// Whether a program reads one of the tables.
    pub fn have_programs(&self) -> bool {
        self.programs().next().is_some()
    }

    fn programs(&self) -> impl Iterator<Item = Rc<Postmap>> {
        self.programs.iter().filter_map(Weak::upgrade)
    }

    /// Starts programs before rights are given up, for the tables that the lists can come to. Each table comes with the
    /// style in which its list looks up the parents of a name.
    pub fn begin<'a>(
        &self,
        reached: impl IntoIterator<Item = (&'a str, ParentStyle)>,
        run_as: RunAs<'_>,
    ) {
        for (name, parents) in reached {
            if let Some(table) = self.programs().find(|table| table.name() == name) {
                table.start(parents, run_as);
            }
        }
    }

    /// Ends the programs of [`Tables::begin`], after the last lookup.
    pub fn end(&self) {
        self.programs().for_each(|table| table.dismiss());
    }

    /// Closes all tables, after the last lookup of the process.
    pub fn close(&self) {
        self.opened.iter().for_each(|table| table.close());
    }

    /// Prepares the tables for many clients, before rights are given up.
    pub fn take_snapshots(&self) {
        self.opened.iter().for_each(|table| table.take_snapshot());
    }

    /// Whether a program is started for each client.
    pub fn run_programs(&self) -> bool {
        self.programs().any(|table| table.runs_a_program())
    }

    /// The name of a table that has changed since it was opened. A resident process asks before each client, and makes
    /// room for a new process.
    pub fn changed_table(&self) -> Option<String> {
        let changed = self.opened.iter().find(|table| table.has_changed())?;
        Some(format!("{}{FLAGS}", changed.name()))
    }

    /// Opens the table `type:name`. If that fails, adds a note, and returns a table whose lookups fail.
    pub(super) fn open(&mut self, name: &str, notes: &mut Vec<Note>) -> Rc<dyn Table> {
        if let Some(table) = self.opened(name) {
            return table;
        }
        let table = match self.new_table(name, notes) {
            Ok(table) => table,
            Err(Reason(reason)) => return self.unopened(name, reason, notes),
        };
        if self.settings.daemon_table_open_error_is_fatal {
            if let Err(Problem(mut warnings)) = table.load() {
                let reason = warnings.pop().unwrap_or_default();
                notes.extend(warnings.into_iter().map(Note::Warning));
                notes.push(Note::Error(reason));
            }
        }
        self.opened.push(Rc::clone(&table));
        table
    }

    /// Notes why a table cannot be opened, and returns a table whose lookups give that reason.
    pub(super) fn unopened(
        &mut self,
        name: &str,
        reason: String,
        notes: &mut Vec<Note>,
    ) -> Rc<dyn Table> {
        notes.push(Note::Error(reason.clone()));
        let name = name.to_owned();
        let table: Rc<dyn Table> = Rc::new(Unopened { name, reason });
        self.opened.push(Rc::clone(&table));
        table
    }

    /// The table of this name, if it has been opened.
    pub(super) fn opened(&self, name: &str) -> Option<Rc<dyn Table>> {
        let found = self.opened.iter().find(|table| table.name() == name);
        found.map(Rc::clone)
    }

    /// Opens `type:name` for reading.
    fn new_table(&mut self, table: &str, notes: &mut Vec<Note>) -> Result<Rc<dyn Table>, Reason> {
        let settings = &self.settings;
        let (kind, name) = match table.split_once(':') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() => (kind, name),
            Some(_) | None => {
                return Err(Reason(format!(
                    "open dictionary: expecting \"type:name\" form instead of \"{table}\""
                )));
            }
        };
        Ok(match kind {
            "inline" => Rc::new(Inline::parse(table, name)?),
            "static" => Rc::new(Static::parse(table, name)?),
            "fail" => Rc::new(Fail::new(table)),
            "texthash" => {
                let utf8 = settings.smtputf8_enable;
                Rc::new(Texthash { utf8 }.open(table, name)?)
            }
            "cidr" => Rc::new(RuleTable::<Networks>::open(table, name)?),
            "cdb" => Rc::new(Cdb::new(table, name, notes)?),
            "proxy" => Rc::new(Proxy::new(table, name, settings)),
            "regexp" => Rc::new(RuleTable::<Expressions>::open(table, name)?),
            _ => {
                let table = Rc::new(Postmap::new(table, (kind, name), settings, notes)?);
                self.programs.push(Rc::downgrade(&table));
                table
            }
        })
    }
}

/// A table that could not be opened.
#[derive(Debug)]
struct Unopened {
    name: String,
    reason: String,
}

impl Table for Unopened {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        Keys::Any
    }

    fn find(&self, _: &str, _: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem> {
        Err(unavailable(&self.name, &self.reason))
    }
}
