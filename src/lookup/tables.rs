//! The tables of a process, each opened once.
//!
//! Small and plain types are read here, one file each; every other type is Postfix's, and its postmap(1) is asked. A
//! table that cannot be opened takes its place in the list all the same, and refuses to answer: the list must not go on
//! as if it were empty. Authority: `tests/spec/client-access.md`, section 4.

use std::rc::Rc;

use super::cdb::Cdb;
use super::cidr::Networks;
use super::constant::{Fail, Static};
use super::inline::Inline;
use super::postmap::Postmap;
use super::proxy::Proxy;
use super::regexp::Expressions;
use super::rules::Rules;
use super::table::{Keys, Problem, Reason, Table, unavailable};
use super::text::{Source, TextTable};
use super::texthash::Entries;
use super::{Note, Settings};

/// The tables of this process. One that several lists name, or one list twice, is opened once.
#[derive(Debug)]
pub struct Tables {
    pub(super) settings: Settings,
    opened: Vec<Rc<dyn Table>>,
}

impl Tables {
    pub fn new(settings: Settings) -> Tables {
        Tables {
            settings,
            opened: Vec::new(),
        }
    }

    /// The table `type:name`. Where it cannot be opened, that is noted, and what comes back cannot answer.
    pub(super) fn open(&mut self, name: &str, notes: &mut Vec<Note>) -> Rc<dyn Table> {
        if let Some(table) = self.opened.iter().find(|table| table.name() == name) {
            return Rc::clone(table);
        }
        let table = match open(name, &self.settings, notes) {
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

    /// The pseudo table that stands for a file, if that could not be opened before.
    pub(super) fn opened(&self, name: &str) -> Option<Rc<dyn Table>> {
        let found = self.opened.iter().find(|table| table.name() == name);
        found.map(Rc::clone)
    }
}

/// Opens `type:name` for reading, or says why it cannot be.
fn open(table: &str, settings: &Settings, notes: &mut Vec<Note>) -> Result<Rc<dyn Table>, Reason> {
    let (kind, name) = match table.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => (kind, name),
        Some(_) | None => {
            return Err(Reason(format!(
                "open dictionary: expecting \"type:name\" form instead of \"{table}\""
            )));
        }
    };
    Ok(match kind {
        "inline" => Rc::new(Inline::open(table, name)?),
        "static" => Rc::new(Static::open(table, name)?),
        "fail" => Rc::new(Fail::open(table)),
        "texthash" => {
            let entries = Entries::new(settings.smtputf8_enable);
            Rc::new(TextTable::new(table, Source::settled(name)?, entries))
        }
        "cidr" => {
            let rules = Rules::<Networks>::new();
            Rc::new(TextTable::new(table, Source::rules(kind, name)?, rules))
        }
        "cdb" => Rc::new(Cdb::open(table, name, notes)?),
        "proxy" => Rc::new(Proxy::open(table, name, settings)),
        "regexp" => {
            let rules = Rules::<Expressions>::new();
            Rc::new(TextTable::new(table, Source::rules(kind, name)?, rules))
        }
        _ => Rc::new(Postmap::open(table, (kind, name), settings)?),
    })
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

    fn find(&self, _: &str) -> Result<Option<Vec<u8>>, Problem> {
        Err(unavailable(&self.name, &self.reason))
    }
}
