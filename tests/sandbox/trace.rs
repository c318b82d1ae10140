//! What strace(1) has written down of processes that put the table's filter in force, and which rows of the table they use
//! from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::LIMIT;
use super::harness::master::until;
use super::table::{Check, TABLE, Who, Why};

/// What strace(1) is told: a file for each process, the numbers of calls, and all arguments as numbers.
pub const FORM: &str = "-ff -n -q -e raw=all";

/// The calls that make a process.
const FORKS: [libc::c_long; 3] = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_vfork];

/// PR_SET_PDEATHSIG and SIGKILL.
const SET_PDEATHSIG_KILL: [u64; 2] = [1, 9];

/// PR_SET_SECCOMP, SOCK_STREAM, and the bits of a socket's type without its flags.
const SET_SECCOMP: u64 = 22;
const STREAM: u64 = 1;
const TYPE: u64 = 0xf;

/// The length of the address of the queue manager's socket: the family and the path.
const PUBLIC_QMGR: u64 = 2 + 11;

/// One system call.
struct Call {
    number: libc::c_long,
    arguments: Vec<u64>,
    /// Nothing where it has failed, or the process has ended meanwhile.
    result: Option<u64>,
}

impl Call {
    /// From a line such as `[   0] read(0, 0x7ffc0, 0x1000) = 0x5`.
    fn read(line: &str) -> Option<Call> {
        let (number, rest) = line.strip_prefix('[')?.split_once(']')?;
        let (_, rest) = rest.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(" = ").unwrap_or((rest, ""));
        let arguments = arguments.trim_end().trim_end_matches(')').split(", ");
        Some(Call {
            number: number.trim().parse().ok()?,
            arguments: arguments.map(|text| in_c(text).unwrap_or(0)).collect(),
            result: result.split(' ').next().and_then(in_c),
        })
    }

    fn argument(&self, number: u32) -> u64 {
        self.arguments.get(number as usize).copied().unwrap_or(0)
    }

    fn opens(&self, flag: libc::c_int) -> bool {
        let has_flag = self.argument(2) & u64::from(flag.unsigned_abs()) != 0;
        self.number == libc::SYS_openat && has_flag && self.result.is_some()
    }

    fn makes_a_stream(&self) -> bool {
        self.number == libc::SYS_socket && self.argument(1) & TYPE == STREAM
    }

    /// What the child does that looks a name up.
    fn dies_at_once_with_its_parent(&self) -> bool {
        self.number == libc::SYS_prctl && self.arguments.starts_with(&SET_PDEATHSIG_KILL)
    }

    fn makes_a_process(&self) -> bool {
        FORKS.contains(&self.number) && self.result > Some(0)
    }
}

/// A number as C writes it.
fn in_c(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A filter in force.
#[derive(Debug, Clone)]
struct Filter {
    /// The process that has put it in force.
    pid: i32,
    /// Whose rows it has, and the number that their calls are held to.
    parties: Vec<(Who, u64)>,
}

impl Filter {
    /// The filter of a session, whose needs the calls before it tell.
    fn of_session(pid: i32, before: &[Call]) -> Filter {
        let last = |wanted: fn(&Call) -> bool| {
            let mut found = before.iter().rev().filter(|call| wanted(call));
            found.next()?.result
        };
        let needs = [
            (Who::File, last(|call| call.opens(libc::O_CREAT))),
            (Who::Unlink, last(|call| call.opens(libc::O_DIRECTORY))),
            (Who::Connect, last(Call::makes_a_stream)),
            (Who::Wait, last(Call::makes_a_process)),
        ];
        let needs = needs
            .into_iter()
            .filter_map(|(who, held)| Some((who, held?)));
        let parties = [(Who::Everybody, 0)].into_iter().chain(needs).collect();
        Filter { pid, parties }
    }

    /// The rows that allow a call.
    fn uses(&self, call: &Call) -> Vec<Use> {
        let parties = self.parties.iter();
        let found: Vec<Use> = parties
            .flat_map(|&party| self.uses_of(call, party))
            .collect();
        assert!(
            !found.is_empty(),
            "call {} {:x?} has got past {self:?}",
            call.number,
            call.arguments
        );
        found
    }

    fn uses_of(&self, call: &Call, (who, held): (Who, u64)) -> Vec<Use> {
        let low = |n: u32| call.argument(n) & 0xffff_ffff;
        let rows = TABLE.iter().enumerate();
        let own = rows.filter(|(_, row)| row.who == who && row.calls.contains(&call.number));
        let holding = own.filter_map(|(at, row)| {
            let mut among = None;
            let holds = row.checks.iter().all(|check| match *check {
                Check::OwnPid(n) => low(n) == u64::try_from(self.pid).unwrap(),
                Check::Held(n) => low(n) == held,
                Check::Length(n) => low(n) == PUBLIC_QMGR,
                Check::Among(n, numbers) => {
                    let mut numbers = numbers.iter().copied();
                    among = numbers.find(|&number| low(n) == number.into());
                    among.is_some()
                }
                Check::Except(n, numbers) => !numbers.iter().any(|&number| low(n) == number.into()),
                Check::Null(n) => call.argument(n) == 0,
                Check::Without(n, bits) => low(n) & u64::from(bits) == 0,
                Check::With(n, bits) => low(n) & u64::from(bits) != 0,
                Check::Positive(n) => (1..1 << 31).contains(&low(n)),
            });
            holds.then_some((at, call.number, among))
        });
        holding.collect()
    }
}

/// A row, one of its calls, and the number that an argument has if it may have several.
pub type Use = (usize, libc::c_long, Option<u32>);

/// Every use of rows that are in the table for this reason.
pub fn all_uses(why: Why) -> BTreeSet<Use> {
    let mut all = BTreeSet::new();
    for (at, row) in TABLE.iter().enumerate().filter(|(_, row)| row.why == why) {
        let among = row.checks.iter().find_map(|check| match check {
            Check::Among(_, numbers) => Some(numbers.iter().copied().map(Some).collect()),
            Check::OwnPid(_)
            | Check::Held(_)
            | Check::Except(..)
            | Check::Length(_)
            | Check::Null(_)
            | Check::Without(..)
            | Check::With(..)
            | Check::Positive(_) => None,
        });
        let numbers: Vec<Option<u32>> = among.unwrap_or(vec![None]);
        let calls = row.calls.iter();
        all.extend(calls.flat_map(|&call| numbers.iter().map(move |&number| (at, call, number))));
    }
    all
}

/// The calls of a program and of the processes that it forks, each by its number.
pub struct Trace {
    /// The number of the program's own process.
    pub root: i32,
    processes: BTreeMap<i32, Vec<Call>>,
}

/// The traces in a directory, in files that are named after the program's process and their own.
pub fn read_all(directory: &Path) -> Vec<Trace> {
    let mut traces: BTreeMap<i32, BTreeMap<i32, Vec<Call>>> = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let (root, pid) = name.split_once('.').unwrap();
        let mut text = String::new();
        let has_ended = || {
            text = fs::read_to_string(&path).unwrap();
            text.contains("+++ ")
        };
        assert!(until(LIMIT, has_ended), "process {pid} goes on");
        let processes = traces.entry(root.parse().unwrap()).or_default();
        let calls = text.lines().filter_map(Call::read).collect();
        processes.insert(pid.parse().unwrap(), calls);
    }
    let traces = traces.into_iter();
    traces
        .map(|(root, processes)| Trace { root, processes })
        .collect()
}

impl Trace {
    /// Of which rows a program has made use that serves one client.
    pub fn uses_of_session(&self) -> BTreeSet<Use> {
        let mut used = BTreeSet::new();
        self.follow(self.root, false, &[], &mut used);
        used
    }

    /// Of which rows the children of a resident process have made use. Its own filter is not of the table.
    pub fn uses_of_resident(&self) -> BTreeSet<Use> {
        let mut used = BTreeSet::new();
        self.follow(self.root, true, &[], &mut used);
        used
    }

    fn follow(&self, pid: i32, is_resident: bool, above: &[Filter], used: &mut BTreeSet<Use>) {
        let mut filters = above.to_vec();
        let calls = self.processes.get(&pid).map_or(&[][..], Vec::as_slice);
        for (at, call) in calls.iter().enumerate() {
            used.extend(filters.iter().flat_map(|filter| filter.uses(call)));
            let sets_filter = call.number == libc::SYS_prctl && call.argument(0) == SET_SECCOMP;
            let before = &calls[..at];
            let is_session =
                || !is_resident && !before.iter().any(Call::dies_at_once_with_its_parent);
            if sets_filter && call.result == Some(0) && is_session() {
                filters.push(Filter::of_session(pid, before));
            }
            if call.makes_a_process() {
                let child = i32::try_from(call.result.unwrap()).unwrap();
                self.follow(child, false, &filters, used);
            }
        }
    }
}
