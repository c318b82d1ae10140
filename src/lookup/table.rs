//! Lookup tables, `type:name`.
//!
//! What a list needs to know of one: what it is called, whether parent domains are worth asking for, and whether a key
//! is in it. Small and plain types are read here, one file each; every other type is Postfix's, and its postmap(1) is
//! asked. A table that cannot be opened takes its place in the list all the same, and refuses to answer: the list must
//! not go on as if it were empty. Authority: `tests/spec/client-access.md`, section 4.

use std::fmt::{self, Debug, Display};
use std::rc::Rc;

use super::cdb::Cdb;
use super::cidr::Cidr;
use super::constant::{Fail, Static};
use super::inline::Inline;
use super::match_list::ParentStyle;
use super::postmap::Postmap;
use super::proxy::Proxy;
use super::regexp::Regexp;
use super::texthash::TextHash;
use super::{Note, Settings};
use crate::config::{self, Owner};
use crate::log;

/// Gives the account of a program that is told a client's name; none where the program runs as the user of this process.
/// Called only where there is such a program.
pub type RunAs<'a> = &'a dyn Fn() -> Result<Option<Owner>, config::Error>;

/// Whether a key of the table stands for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// It does; whoever looks for a name also asks for its parent domains.
    Fixed,
    /// Keys are patterns, which can see to parent domains themselves.
    Pattern,
}

/// Who is looked up, in lower case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'a> {
    /// Nothing where it is open: the table is not going to be asked for it.
    pub(super) name: Option<&'a str>,
    /// Nothing where it is no address.
    pub(super) addr: Option<&'a str>,
}

/// A lookup without an answer; the table's own warnings about it, if it has any.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Problem(pub(super) Vec<String>);

impl From<String> for Problem {
    fn from(warning: String) -> Problem {
        Problem(vec![warning])
    }
}

pub(super) trait Table: Debug {
    /// `type:name`.
    fn name(&self) -> &str;

    /// Known for certain only after the first lookup: a table may be somebody else's to ask.
    fn keys(&self) -> Keys;

    /// The value of `key`, which is in lower case; `None` when the table does not have it.
    fn find(&self, key: &str) -> Result<Option<Vec<u8>>, Problem>;

    /// Whether a name can be in it at all.
    fn has_names(&self) -> bool {
        true
    }

    /// Whether what was opened is no longer what would be opened now. Only tables that Postfix watches say so.
    fn has_changed(&self) -> bool {
        false
    }

    /// Does what cannot be done any more after privileges are dropped, and is not done for a table that no evaluation
    /// can reach. `parents` is how names will be asked for.
    fn start(&self, _parents: ParentStyle, _run_as: RunAs<'_>) {}

    /// Reads all of it now, where that is what it takes to serve one client after another.
    fn take_snapshot(&self) {}

    /// Says who `find` is going to be asked about. It matters to a table that is asked everything at once.
    fn announce(&self, _client: &Client<'_>) {}

    /// Ends what [`Table::start`] has started.
    fn finish(&self) {}

    /// Reads now what is read when the table is first asked, so that what is wrong with it is known.
    fn load(&self) -> Result<(), Problem> {
        Ok(())
    }

    /// Whether a program has to be started for each client that the table is asked about.
    fn runs_a_program(&self) -> bool {
        false
    }

    /// Whether no client gets past the table, because it has every key or answers no question.
    fn is_last(&self) -> bool {
        false
    }
}

/// Looks a key up. With smtputf8_enable a value that is no UTF-8 is an error, whoever it is for.
pub(super) fn find(table: &dyn Table, key: &str, utf8: bool) -> Result<bool, Problem> {
    let Some(value) = table.find(key)? else {
        return Ok(false);
    };
    if utf8 && std::str::from_utf8(&value).is_err() {
        return Err(Problem::from(format!(
            "{}: key \"{key}\": non-UTF-8 value \"{}\": malformed UTF-8 or invalid codepoint",
            table.name(),
            log::Shown(&value)
        )));
    }
    Ok(true)
}

/// Why a table cannot be opened, in Postfix's words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reason(pub(super) String);

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
        "texthash" => Rc::new(TextHash::open(table, name, settings.smtputf8_enable)?),
        "cidr" => Rc::new(Cidr::open(table, name)?),
        "cdb" => Rc::new(Cdb::open(table, name, notes)?),
        "proxy" => Rc::new(Proxy::open(table, name, settings)),
        "regexp" => Rc::new(Regexp::open(table, name)?),
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
        Keys::Pattern
    }

    fn find(&self, _: &str) -> Result<Option<Vec<u8>>, Problem> {
        Err(unavailable(&self.name, &self.reason))
    }

    fn is_last(&self) -> bool {
        true
    }
}

/// What a lookup in a table says that could not be opened, or turned out to be unusable.
pub(super) fn unavailable(name: &str, reason: &str) -> Problem {
    Problem::from(format!("{name} is unavailable. {reason}"))
}
