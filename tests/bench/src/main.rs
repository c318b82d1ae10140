//! Measures qmqpd beside Postfix's own and beside floors that do the least there is to do.
//!
//! usage: qmqpd-bench [--quick] OURS NAME=DIRECTORY ...
//!
//! OURS is our program. In each directory a Postfix of its own is made, with every server around it; the table calls it
//! NAME. All servers take turns (A B C A B C), so that a neighbour on the machine disturbs them alike. Run it by
//! `scripts/bench`.

mod instance;
mod load;
mod measure;
mod results;
mod servers;
mod systemd;
mod table;
mod targets;

use std::fs;
use std::io::{self, Error};
use std::num::NonZero;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use load::{Load, Shape};
use measure::{Metered, Usage};
use results::{Key, Results};
use servers::{Method, Mode, Place, Programs, Server, Subject};

const fn mebibytes(count: usize) -> Shape {
    Shape {
        content: count << 20,
        recipients: 1,
    }
}

const fn list(recipients: usize) -> Shape {
    Shape {
        content: 4 << 10,
        recipients,
    }
}

pub const SMALL: Shape = list(1);
pub const LIST: Shape = list(1000);
pub const LARGE: [Shape; 2] = [mebibytes(1), mebibytes(10)];

/// What may take ten times as long from one to the next.
pub const SIZES: [Shape; 3] = [mebibytes(1), mebibytes(10), mebibytes(100)];
pub const LISTS: [Shape; 3] = [list(1000), list(10_000), list(100_000)];

/// Small messages first: with the fifty clients Postfix starts processes that stay.
const LOADS: [(Shape, usize); 6] = [
    (SMALL, 1),
    (SMALL, 10),
    (SMALL, 50),
    (LIST, 1),
    (LARGE[0], 1),
    (LARGE[1], 1),
];

/// How long everything takes.
struct Plan {
    quick: bool,
    rounds: usize,
    /// Of one load on one server.
    time: Duration,
    /// Metered sessions in a round, of the small message.
    sessions: usize,
    /// Rounds of what is a hundred times as large.
    growth_rounds: usize,
}

const FULL: Plan = Plan {
    quick: false,
    rounds: 5,
    time: Duration::from_millis(500),
    sessions: 50,
    growth_rounds: 5,
};
const QUICK: Plan = Plan {
    quick: true,
    rounds: 5,
    time: Duration::from_millis(120),
    sessions: 20,
    growth_rounds: 1,
};

struct Bench {
    plan: Plan,
    programs: Programs,
    /// A directory that every server may write to.
    scratch: PathBuf,
    results: Results,
    missing: Vec<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("qmqpd-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.first().is_some_and(|word| word == "--quick");
    words.drain(..usize::from(quick));
    let [ours, places @ ..] = &words[..] else {
        return Err(Error::other(
            "usage: qmqpd-bench [--quick] OURS NAME=DIRECTORY ...",
        ));
    };
    let places: Vec<(&'static str, &Path)> = places
        .iter()
        .filter_map(|place| {
            let (name, directory) = place.split_once('=')?;
            let name: &'static str = if name == "tmpfs" { "tmpfs" } else { "disk" };
            Some((name, Path::new(directory)))
        })
        .collect();
    // The last directory is on a disk, whence programs may be run.
    let (_, directory) = places.last().ok_or_else(|| Error::other("no directory"))?;
    let scratch = directory.join("scratch");
    let programs = Programs::make(&directory.join("programs"), Path::new(ours))?;
    fs::create_dir(&scratch)?;
    chown(&scratch, Some(instance::mail_owner()?.uid.as_raw()), None)?;
    let before = load_average();
    let plan = if quick { QUICK } else { FULL };
    let mut bench = Bench {
        plan,
        programs,
        scratch,
        results: Results::default(),
        missing: Vec::new(),
    };
    for (index, (name, directory)) in places.iter().enumerate() {
        bench.place(name, directory, index == 0)?;
    }
    println!("{}", machine(&before));
    table::print(&bench.results);
    if !bench.missing.is_empty() {
        println!("\nNot run:");
        bench.missing.iter().for_each(|line| println!("  {line}"));
    }
    println!();
    let names: Vec<&'static str> = places.iter().map(|(name, _)| *name).collect();
    targets::Figures::print(&bench.results, &names);
    Ok(())
}

/// What the figures hold for. Every process that does something else makes short latencies long.
fn machine(before: &str) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = available_parallelism().map_or(0, NonZero::get);
    format!(
        "Linux {}, {processors} processors; load average before {before}, after {}\n",
        kernel.trim(),
        load_average()
    )
}

/// Of the last minute.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

impl Bench {
    /// All measurements in one place. What does not depend on it is measured in the first.
    fn place(&mut self, name: &'static str, directory: &Path, first: bool) -> io::Result<()> {
        eprintln!("{name}: starting servers");
        let place = Place::start(name, &directory.join("postfix"), &self.programs)?;
        self.missing.extend_from_slice(&place.missing);
        if first {
            eprintln!("{name}: counting");
            self.count(&place);
        }
        for (shape, clients) in LOADS {
            let of_disk = [(SMALL, 1), (LIST, 1)].contains(&(shape, clients));
            if first || !self.plan.quick || of_disk {
                eprintln!("{name}: {}, {clients} at a time", table::name(shape));
                self.load(&place, shape, clients)?;
            }
            if first && !self.plan.quick && shape == SMALL {
                self.second_opinion(&place, clients)?;
            }
        }
        if first || !self.plan.quick {
            for shape in [SMALL, LIST, LARGE[0], LARGE[1]] {
                eprintln!("{name}: {}, metered", table::name(shape));
                self.meter(&place, shape)?;
            }
        }
        if first {
            eprintln!("{name}: growth");
            self.growth(&place)?;
        }
        Ok(())
    }

    fn load(&mut self, place: &Place, shape: Shape, clients: usize) -> io::Result<()> {
        let request = shape.request();
        let load = Load {
            clients,
            time: self.plan.time,
            least: 1,
        };
        let subjects = place
            .subjects
            .iter()
            .filter(|subject| !self.plan.quick || is_quick(subject, shape, clients));
        let subjects: Vec<&Subject> = subjects.collect();
        // Of the resident processes, over all rounds: /proc is too coarse for one.
        let mut totals = vec![(Usage::default(), 0); subjects.len()];
        for _ in 0..self.plan.rounds {
            for (subject, total) in subjects.iter().zip(&mut totals) {
                let before = resident_usage(place, subject)?;
                let sent = load::send(subject.port, &request, load)
                    .map_err(|error| failed(subject, error))?;
                let row = self.results.row(key(place, shape, clients, subject));
                row.add_sent(&sent);
                if subject.mode == Mode::Master {
                    let usage = resident_usage(place, subject)?.since(before);
                    row.cpu_rounds.push(usage.per(sent.latencies.len()).cpu());
                    *total = (total.0.plus(usage), total.1 + sent.latencies.len());
                }
                settle(place, subject)?;
            }
        }
        for (subject, (usage, messages)) in subjects.iter().zip(totals) {
            if subject.mode == Mode::Master {
                self.results
                    .row(key(place, shape, clients, subject))
                    .add_usage(usage.per(messages));
            }
        }
        Ok(())
    }

    /// Once more with qmqp-source(1), where our own generator has said how many messages a load is.
    fn second_opinion(&mut self, place: &Place, clients: usize) -> io::Result<()> {
        const SUBJECTS: [(Mode, Server); 5] = [
            (Mode::Stdin, Server::Postfix),
            (Mode::Stdin, Server::Ours(Method::Cleanup)),
            (Mode::Master, Server::Postfix),
            (Mode::Master, Server::Ours(Method::Cleanup)),
            (Mode::Master, Server::Ours(Method::File)),
        ];
        for _ in 0..self.plan.rounds {
            for (mode, server) in SUBJECTS {
                let Some(subject) = place.find(mode, server) else {
                    continue;
                };
                let row = self.results.row(key(place, SMALL, clients, subject));
                let rate = results::median(&row.rate).unwrap_or_default();
                let count = clients.max((rate * self.plan.time.as_secs_f64()) as usize);
                let measured = measure::qmqp_source(subject.port, SMALL.content, clients, count);
                row.source
                    .push(measured.map_err(|error| failed(subject, error))?);
                place.instance.clear()?;
            }
        }
        Ok(())
    }

    fn meter(&mut self, place: &Place, shape: Shape) -> io::Result<()> {
        let request = shape.request();
        let sessions = match shape {
            SMALL => self.plan.sessions,
            shape if shape == LARGE[1] => self.plan.sessions.div_ceil(20),
            _ => self.plan.sessions.div_ceil(5),
        };
        for _ in 0..self.plan.rounds {
            for subject in &place.subjects {
                self.sessions(place, subject, shape, &request, sessions)?;
            }
        }
        Ok(())
    }

    /// Meters one after another. What belongs to mode stdin only is passed over.
    fn sessions(
        &mut self,
        place: &Place,
        subject: &Subject,
        shape: Shape,
        request: &[u8],
        count: usize,
    ) -> io::Result<()> {
        let Some(program) = &subject.program else {
            return Ok(());
        };
        let mut metered = Metered::start(program, &self.programs, &[])?;
        let sessions: io::Result<Vec<_>> = (0..count).map(|_| metered.session(request)).collect();
        let sessions = sessions.map_err(|error| failed(subject, error))?;
        self.results
            .row(key(place, shape, 1, subject))
            .add_sessions(&sessions);
        place.instance.clear()
    }

    fn growth(&mut self, place: &Place) -> io::Result<()> {
        for shape in [SIZES[2], LISTS[1], LISTS[2]] {
            let request = shape.request();
            for _ in 0..self.plan.growth_rounds {
                for method in [Method::Cleanup, Method::File] {
                    if let Some(subject) = place.find(Mode::Stdin, Server::Ours(method)) {
                        self.sessions(place, subject, shape, &request, 1)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// System calls and instructions of the small message.
    fn count(&mut self, place: &Place) {
        let request = SMALL.request();
        for subject in &place.subjects {
            let row = key(place, SMALL, 1, subject);
            let calls = match &subject.program {
                Some(program) => {
                    measure::system_calls(program, &self.programs, &self.scratch, &request)
                }
                None if subject.mode == Mode::Master => {
                    let pids = place.instance.residents(subject.port);
                    pids.and_then(|pids| {
                        measure::resident_calls(&pids, subject.port, &self.scratch, &request, 20)
                    })
                }
                None => continue,
            };
            self.keep(calls, "system calls", row, |samples| &mut samples.calls);
            // valgrind's own calls are not in the filter.
            let confined = matches!(subject.server, Server::Ours(_));
            if let Some(program) = subject.program.as_ref().filter(|_| !confined) {
                let count = measure::instructions(program, &self.programs, &self.scratch, &request);
                self.keep(count, "instructions", row, |samples| {
                    &mut samples.instructions
                });
            }
        }
        drop(place.instance.clear());
    }

    fn keep(
        &mut self,
        counted: io::Result<f64>,
        what: &str,
        row: Key,
        of: fn(&mut results::Samples) -> &mut Vec<f64>,
    ) {
        match counted {
            Ok(count) => of(self.results.row(row)).push(count),
            Err(error) => {
                self.missing.push(format!(
                    "{what} of {} under {}: {error}",
                    row.server.name(),
                    row.mode.name()
                ));
            }
        }
    }
}

/// The next turn begins with an empty queue and an idle machine. systemd still tidies up long after its last reply.
fn settle(place: &Place, subject: &Subject) -> io::Result<()> {
    place.instance.clear()?;
    let after = match subject.mode {
        Mode::Systemd => Duration::from_millis(500),
        Mode::Stdin | Mode::Master => Duration::from_millis(5),
    };
    sleep(after);
    Ok(())
}

/// What `--quick` passes over in the throughput of all but the small message: no figure needs it.
fn is_quick(subject: &Subject, shape: Shape, clients: usize) -> bool {
    if subject.mode == Mode::Systemd {
        return shape == SMALL && clients <= 10;
    }
    let extra = match subject.server {
        Server::FloorAStatic | Server::FloorB | Server::Mailfront => true,
        Server::Ours(Method::Qmail) | Server::Open(Method::Qmail) => true,
        Server::FloorA | Server::Postfix | Server::Ours(_) | Server::Open(_) => false,
    };
    !extra || shape == SMALL && clients == 1
}

/// What a service under master has used so far; nothing elsewhere.
fn resident_usage(place: &Place, subject: &Subject) -> io::Result<Usage> {
    match subject.mode {
        Mode::Master => measure::used(&place.instance.residents(subject.port)?),
        Mode::Stdin | Mode::Systemd => Ok(Usage::default()),
    }
}

fn key(place: &Place, shape: Shape, clients: usize, subject: &Subject) -> Key {
    Key {
        place: place.name,
        shape,
        clients,
        mode: subject.mode,
        server: subject.server,
    }
}

fn failed(subject: &Subject, error: Error) -> Error {
    Error::other(format!(
        "{} under {}: {error}",
        subject.server.name(),
        subject.mode.name()
    ))
}
