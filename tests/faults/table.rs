//! What came of the sessions, for people: a row for each call, a column for each fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use crate::matrix::COLUMNS;
use crate::session::METHODS;

/// How far a session is when the fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    Load,
    Start,
    Serve,
}

impl Section {
    fn title(self) -> &'static str {
        match self {
            Section::Load => {
                "The loader and the standard library, before the program: one fault, one method in turn"
            }
            Section::Start => {
                "From the program's first act to the client's first byte: one method in turn"
            }
            Section::Serve => {
                "From the client's first byte on: each method, cleanup|file|qmail where they differ"
            }
        }
    }
}

/// The column whose error no call can be blamed for.
const EIO: usize = 2;

/// The letters of a cell, by method. Where methods take turns there is one set for all.
type Letters = BTreeMap<Option<usize>, BTreeSet<char>>;

#[derive(Default)]
struct Row {
    /// By column.
    cells: BTreeMap<usize, Letters>,
    remarks: BTreeSet<&'static str>,
}

#[derive(Default)]
pub struct Table {
    rows: BTreeMap<(Section, String), Row>,
    sessions: usize,
    /// How many of them went another way.
    missed: usize,
}

impl Table {
    /// What came of a session: nothing that could be shown, where the call did not come.
    pub fn put(
        &mut self,
        row: (Section, String),
        column: usize,
        method: Option<usize>,
        letter: Option<char>,
    ) {
        self.sessions += 1;
        self.missed += usize::from(letter.is_none());
        let cell = self.rows.entry(row).or_default().cells.entry(column);
        let letters = cell.or_default().entry(method).or_default();
        letters.extend(letter);
    }

    /// There is no session, and why.
    pub fn leave_out(&mut self, row: (Section, String), why: &'static str) {
        let row = self.rows.entry(row).or_default();
        row.remarks.extend((!why.is_empty()).then_some(why));
    }

    /// Fails if the table has less to show than a session must have: then it has looked at the wrong thing.
    pub fn assert_complete(&self) {
        for (name, errors) in [
            ("write cleanup", "Z|.|."),
            ("fsync incoming", ".|Z|."),
            ("wait4 program", ".|.|z"),
            ("read client", "-"),
            ("write client", "q"),
            ("sendto log", "K"),
        ] {
            let row = self.rows.get(&(Section::Serve, name.to_owned()));
            let shown = row.and_then(|row| row.cells.get(&EIO)).map(text_of);
            assert_eq!(shown.as_deref(), Some(errors), "{name}");
        }
        assert!(self.missed <= self.sessions / 50, "{}", self.missed);
    }
}

const LEGEND: &str = "\
K accepted; Z try again; - no answer; z, q: try again, or no answer, and yet it is queued, so that it may come twice;
. the method makes no such call; ? the call did not come this time; ! a promise broken; nothing: cannot be had.
A row is all calls of that name, with that at the other end; it has a letter for each outcome that one of them had.
Not in here: the calls of the child that looks the name up, and of the queue's program; a second fault after the first.
";

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} sessions with one fault each\n{LEGEND}",
            self.sessions
        )?;
        let mut section = None;
        for ((of, name), row) in &self.rows {
            if section != Some(*of) {
                section = Some(*of);
                writeln!(f, "{}", of.title())?;
                let names: String = COLUMNS
                    .iter()
                    .map(|(name, _)| format!("{name:11}"))
                    .collect();
                writeln!(f, "{:22}{names}", "")?;
            }
            let cells = (0..COLUMNS.len()).map(|column| {
                let text = row.cells.get(&column).map(text_of).unwrap_or_default();
                format!("{text:11}")
            });
            let remarks: Vec<&str> = row.remarks.iter().copied().collect();
            let cells: String = cells.collect();
            let line = format!("{name:22}{cells}{}", remarks.join("; "));
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn text_of(cell: &Letters) -> String {
    let text = |method| match cell.get(&method) {
        None => ".".to_owned(),
        Some(letters) if letters.is_empty() => "?".to_owned(),
        Some(letters) => letters.iter().collect(),
    };
    if cell.contains_key(&None) {
        return text(None);
    }
    let shown: Vec<String> = (0..METHODS.len())
        .map(|method| text(Some(method)))
        .collect();
    if shown.iter().all(|one| *one == shown[0]) {
        shown[0].clone()
    } else {
        shown.join("|")
    }
}
