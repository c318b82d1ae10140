//! Every system call of a session, each failing once in every way that it can.
//!
//! A session that nobody meddles with says which calls there are. Then there is one session for each call and fault, in
//! which strace(1) has this call fail, and [`judge`] looks at what came of it. What the calls have in common, name and
//! other end, is a row of the table.
//!
//! Up to the first byte of the client a session is the same for each queue method: there each call and fault has one
//! method's session, in turn. The child that looks names up is left alone: a resolver that cannot read its files asks the
//! network. Its parent can do without an answer, and `sys::child` tests what happens when it dies or hangs.
//!
//! `QMQPD_FAULTS=part` restricts a run to the rows that have `part` in their names, such as `fsync incoming`.

use std::collections::BTreeMap;
use std::sync::Mutex;

use nix::errno::Errno;

use crate::harness::dialogue::at_once;
use crate::harness::trace::Call;
use crate::judge::{self, Fault, Phase};
use crate::session::{METHODS, Meddling, Method, Seen, Setting, run};
use crate::table::{Section, Table};
use crate::tracer::{self, Change};

/// The columns: the name that strace has for an error, and the error; or a signal.
pub const COLUMNS: [(&str, Option<Errno>); 8] = [
    ("EINTR", Some(Errno::EINTR)),
    ("EAGAIN", Some(Errno::EAGAIN)),
    ("EIO", Some(Errno::EIO)),
    ("ENOSPC", Some(Errno::ENOSPC)),
    ("ECONNRESET", Some(Errno::ECONNRESET)),
    ("EMFILE", Some(Errno::EMFILE)),
    ("ENOMEM", Some(Errno::ENOMEM)),
    ("SIGALRM", None),
];

/// Calls to which not everything can happen: name, other end or any, the errors that there are, and why no others. The
/// first row that fits counts. A signal may come in any.
const IMPOSSIBLE: [(&str, &str, &[&str], &str); 13] = [
    ("execve", "", &[], "is strace's own"),
    ("alarm", "", &[], "cannot fail"),
    ("exit_group", "", &[], "cannot fail"),
    ("geteuid", "", &[], "cannot fail"),
    ("getpid", "", &[], "cannot fail"),
    ("gettid", "", &[], "cannot fail"),
    ("getuid", "", &[], "cannot fail"),
    ("umask", "", &[], "cannot fail"),
    ("futex", "", &[], "wakes: cannot fail"),
    ("rt_sigprocmask", "", &[], "sets its own mask: cannot fail"),
    ("brk", "", &["ENOMEM"], "knows no other error"),
    (
        "close",
        "",
        &[],
        "closes whatever it says: see `close, all`",
    ),
    (
        "recvfrom",
        "program",
        &["EINTR"],
        "reads from a pair of its own: knows no other error",
    ),
];

/// What strace is told, or why the fault cannot be had in this call.
fn injection(call: &Call, phase: Phase, column: usize) -> Result<String, &'static str> {
    let (error, errno) = COLUMNS[column];
    let Call { name, number, .. } = call;
    if !call.has_name() {
        return Err("this strace has no name for it");
    }
    let possible = IMPOSSIBLE
        .iter()
        .find(|(other, object, ..)| other == name && (object.is_empty() || *object == call.object));
    if errno.is_none() {
        return match possible {
            _ if phase == Phase::Load => Err(""),
            Some(("execve", .., why)) => Err(why),
            _ => Ok(format!("{name}:signal=ALRM:when={number}")),
        };
    }
    if let Some((_, _, errors, why)) = possible {
        if !errors.contains(&error) {
            return Err(why);
        }
    }
    if phase == Phase::Load && error != "EIO" && name != "brk" {
        return Err("");
    }
    Ok(match name.as_str() {
        // This one answers with the end of memory, which is then below what was asked for.
        "brk" => format!("brk:retval=0:when={number}"),
        _ => format!("{name}:error={error}:when={number}"),
    })
}

/// How strace writes the first call of the program's own, which installs the handler for alarms, and the one that waits for
/// the client.
const FIRST_ACT: &str = "rt_sigaction(SIGALRM, {sa_handler=0x";
const FIRST_BYTE: &str = "MSG_PEEK";

/// A session that nobody meddles with, and its calls.
pub struct Plan {
    setting: Setting,
    clean: Seen,
    pub calls: Vec<(Call, Phase, Section)>,
}

impl Plan {
    pub fn new(method: Method, sandbox: bool) -> Plan {
        let mut setting = Setting::new(method, Meddling::Strace(Vec::new()));
        setting.sandbox = sandbox;
        let clean = run(&setting);
        assert!(clean.queued && clean.exit == "0", "{clean:?}");
        let mut at = (Phase::Load, Section::Load);
        let mut calls = Vec::new();
        for call in &clean.calls {
            if call.line.starts_with(FIRST_ACT) {
                at = (Phase::Start, Section::Start);
            }
            if call.line.contains(FIRST_BYTE) {
                at.1 = Section::Serve;
            }
            calls.push((call.clone(), at.0, at.1));
            if call.line.starts_with(FIRST_ACT) {
                at.0 = Phase::Configure;
            }
            if call.name == "connect" && call.object == "log" {
                at.0 = Phase::Serve;
            }
        }
        assert_eq!(at, (Phase::Serve, Section::Serve), "{:?}", clean.calls);
        Plan {
            setting,
            clean,
            calls,
        }
    }

    /// One session with one fault.
    pub fn with(&self, inject: &str) -> Seen {
        run(&Setting {
            meddling: Meddling::Strace(vec![inject.to_owned()]),
            ..self.setting.clone()
        })
    }

    /// One session with one fault: what the call was about, and what came of it. Nothing if it did not come this time.
    fn meddle(&self, cell: &Cell, inject: &str) -> Result<Option<(&'static str, char)>, String> {
        let seen = self.with(inject);
        let planned = cell.call;
        let mut calls = seen.calls.iter();
        let hit = calls.find(|call| call.name == planned.name && call.number == planned.number);
        let (_, errno) = COLUMNS[cell.column];
        let Some(hit) = hit.filter(|hit| hit.is_injected() || errno.is_none()) else {
            return Ok(None);
        };
        // A call that fails may no longer show what it was about.
        let mut hit = hit.clone();
        if hit.object.is_empty() {
            hit.object = planned.object;
        }
        let fault = Fault {
            errno,
            words: &[],
            call: Some(&hit),
            phase: cell.phase,
        };
        judge::outcome(&self.setting, &self.clean, &seen, &fault)
            .map(|letter| Some((hit.object, letter)))
            .map_err(|broken| format!("{inject} {}: {broken}", hit.line))
    }
}

/// One session to be.
struct Cell<'a> {
    plan: &'a Plan,
    /// In [`METHODS`]; nothing where the methods take turns.
    method: Option<usize>,
    column: usize,
    call: &'a Call,
    phase: Phase,
    section: Section,
}

impl Cell<'_> {
    /// The row of the table, where the call is about `object`.
    fn row(&self, object: &str) -> (Section, String) {
        (self.section, format!("{} {object}", self.call.name))
    }
}

fn cells(plans: &[[Plan; 2]]) -> Vec<Cell<'_>> {
    let mut all = Vec::new();
    // Those that take turns, by fault and call.
    let mut turns: BTreeMap<_, Vec<Cell>> = BTreeMap::new();
    for (method, [errors, signals]) in plans.iter().enumerate() {
        for (column, (_, errno)) in COLUMNS.iter().enumerate() {
            let plan = if errno.is_some() { errors } else { signals };
            for (call, phase, section) in &plan.calls {
                let (phase, section) = (*phase, *section);
                let cell = |method| Cell {
                    plan,
                    method,
                    column,
                    call,
                    phase,
                    section,
                };
                if section == Section::Serve {
                    all.push(cell(Some(method)));
                } else {
                    let key = (column, &call.name, call.number, call.object);
                    turns.entry(key).or_default().push(cell(None));
                }
            }
        }
    }
    for ((column, _, number, _), mut cells) in turns {
        let turn = (column + number) % cells.len();
        all.push(cells.swap_remove(turn));
    }
    all
}

/// What a row's name must contain.
pub fn restriction() -> Option<String> {
    std::env::var("QMQPD_FAULTS").ok()
}

/// All sessions, the table of what came of them, and the promises that were broken.
pub fn whole() -> (Table, Vec<String>) {
    let plans = METHODS.map(|method| [Plan::new(method, false), Plan::new(method, true)]);
    let mut cells = cells(&plans);
    let restriction = restriction().unwrap_or_default();
    cells.retain(|cell| cell.row(cell.call.object).1.contains(&restriction));
    let (table, failures) = (Mutex::new(Table::default()), Mutex::new(Vec::new()));
    at_once(cells.len(), |index| {
        let cell = &cells[index];
        let row = |object| cell.row(object);
        let planned = cell.call.object;
        let inject = injection(cell.call, cell.phase, cell.column);
        let outcome = inject.as_ref().map(|inject| cell.plan.meddle(cell, inject));
        let mut table = table.lock().unwrap();
        match outcome {
            Err(why) => table.leave_out(row(planned), why),
            Ok(Ok(Some((object, letter)))) => {
                table.put(row(object), cell.column, cell.method, Some(letter));
            }
            Ok(Ok(None)) => table.put(row(planned), cell.column, cell.method, None),
            Ok(Err(broken)) => {
                failures.lock().unwrap().push(broken);
                table.put(row(planned), cell.column, cell.method, Some('!'));
            }
        }
    });
    let (mut table, mut failures) = (table.into_inner().unwrap(), failures.into_inner().unwrap());
    if tracer::POSSIBLE && CLOSE_ALL.contains(&restriction) {
        failures.extend(close_all(&plans, &mut table));
    }
    (table, failures)
}

/// The row of sessions in which every close fails.
const CLOSE_ALL: &str = "close, all";

/// Each close of a session closes, and fails.
fn close_all(plans: &[[Plan; 2]], table: &mut Table) -> Vec<String> {
    let mut failures = Vec::new();
    for (method, [_, plan]) in plans.iter().enumerate() {
        for (column, (_, errno)) in COLUMNS.iter().enumerate() {
            let Some(number) = errno else {
                continue;
            };
            let setting = Setting::new(
                METHODS[method],
                Meddling::Traced(Change::CloseFails(*number)),
            );
            let seen = run(&setting);
            let fault = Fault {
                errno: *errno,
                words: &[],
                call: None,
                phase: Phase::Serve,
            };
            let letter =
                judge::outcome(&setting, &plan.clean, &seen, &fault).unwrap_or_else(|broken| {
                    failures.push(format!("every close {number}: {broken}"));
                    '!'
                });
            let row = (Section::Serve, CLOSE_ALL.to_owned());
            table.put(row, column, Some(method), Some(letter));
        }
    }
    failures
}
