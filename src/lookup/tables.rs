//! The tables of a process, each opened once.
//!
//! Small and plain types are read here, one file each; every other type is Postfix's, and its postmap(1) is asked. A
//! table that cannot be opened takes its place in the list all the same, and refuses to answer: the list must not go on
//! as if it were empty. Authority: `tests/spec/client-access.md`, section 4.

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

/// The tables of this process. One that several lists name, or one list twice, is opened once.
#[derive(Debug)]
pub struct Tables {
    pub(super) settings: TableSettings,
    pub(super) opened: Vec<Rc<dyn Table>>,
    /// Those of the opened ones that a program reads.
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

    /// Closes the tables that no list has any more.
    pub fn close_unused(&mut self) {
        self.opened.retain(|table| Rc::strong_count(table) > 1);
    }

    pub fn is_empty(&self) -> bool {
        self.opened.is_empty()
    }

    /// Whether there is a table that a program reads.
    pub fn have_programs(&self) -> bool {
        self.programs().next().is_some()
    }

    fn programs(&self) -> impl Iterator<Item = Rc<Postmap>> {
        self.programs.iter().filter_map(Weak::upgrade)
    }

    /// Starts what has to be started before privileges are dropped, for the tables that the lists can come to. With each
    /// of these tables stands how its list asks for the parents of a name.
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

    /// Ends what [`Tables::begin`] has started: no table is going to be asked any more.
    pub fn end(&self) {
        self.programs().for_each(|table| table.dismiss());
    }

    /// Closes all that is open of the tables, in a process that has asked them its last question.
    pub fn close(&self) {
        self.opened.iter().for_each(|table| table.close());
    }

    /// Gets the tables ready for one client after another, before rights are given up.
    pub fn take_snapshots(&self) {
        self.opened.iter().for_each(|table| table.take_snapshot());
    }

    /// Whether there is a table that a program has to be started for, for each client.
    pub fn run_programs(&self) -> bool {
        self.programs().any(|table| table.runs_a_program())
    }

    /// A table that has changed since it was opened, as messages show it. A process that serves many clients asks before
    /// each, and lets a new process open the lists.
    pub fn changed_table(&self) -> Option<String> {
        let changed = self.opened.iter().find(|table| table.has_changed())?;
        Some(format!("{}{FLAGS}", changed.name()))
    }

    /// The table `type:name`. Where it cannot be opened, that is noted, and what comes back cannot answer.
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

    /// Notes why something cannot be opened, and puts a table in its place that says so when it is asked.
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

    /// The table of this name, if it has been asked for before.
    pub(super) fn opened(&self, name: &str) -> Option<Rc<dyn Table>> {
        let found = self.opened.iter().find(|table| table.name() == name);
        found.map(Rc::clone)
    }

    /// Opens `type:name` for reading, or says why it cannot be.
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
