//! Measurements in one place, in which all servers take turns.

use std::io::{self, Error};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use crate::lists::Figure;
use crate::load::{self, Load, Shape};
use crate::measure::{self, Metered, Usage};
use crate::programs::Programs;
use crate::results::{self, Key, Results};
use crate::servers::{Method, Mode, Place, Server, Subject};
use crate::{CROWDS, LARGE, LISTS, Plan, SIZES, SMALL, count};

/// The servers that are measured with a crowd of clients: our `--accept`, tcpserver with the same program, and their floors.
pub const CROWDED: [(Mode, Server); 4] = [
    (Mode::Stdin, Server::FloorA),
    (Mode::Stdin, Server::Ours(Method::Cleanup)),
    (Mode::Accept, Server::FloorA),
    (Mode::Accept, Server::Ours(Method::Cleanup)),
];

pub struct Bench {
    pub plan: Plan,
    pub programs: Programs,
    /// A directory that every server may write to.
    pub scratch: PathBuf,
    pub results: Results,
    /// The figures of long lists, and of the header of a proxy.
    pub lists: Vec<Figure>,
    /// What does not run, and why.
    pub missing: Vec<String>,
}

impl Bench {
    pub fn load(
        &mut self,
        place: &Place,
        first: bool,
        shape: Shape,
        clients: usize,
    ) -> io::Result<()> {
        let request = shape.request();
        let load = Load {
            clients,
            time: self.plan.time,
            least: 1,
        };
        let subjects = place.subjects.iter().filter(|subject| {
            if CROWDS.contains(&clients) {
                CROWDED.contains(&(subject.mode, subject.server))
            } else {
                !self.plan.quick || is_quick(first, subject, shape, clients)
            }
        });
        let subjects: Vec<&Subject> = subjects.collect();
        // Of the resident processes, over all rounds: /proc is too coarse for one.
        let mut totals = vec![(Usage::default(), 0); subjects.len()];
        for _ in 0..self.plan.rounds {
            for (subject, total) in subjects.iter().zip(&mut totals) {
                let before = whole_usage(place, subject)?;
                let sent = load::send(subject.port, &request, load)
                    .map_err(|error| failed(subject, error))?;
                let row = self.results.row(key(place, shape, clients, subject));
                row.add_sent(&sent);
                let messages = sent.latencies.len();
                // The last processes end a moment after their replies.
                settle(place, subject)?;
                let usage = whole_usage(place, subject)?.since(before);
                if is_resident(subject.mode) {
                    row.cpu_rounds.push(usage.per(messages).cpu());
                }
                *total = (total.0.plus(usage), total.1 + messages);
            }
        }
        for (subject, (usage, messages)) in subjects.iter().zip(totals) {
            let row = self.results.row(key(place, shape, clients, subject));
            let usage = usage.per(messages);
            row.whole.push(usage.cpu());
            if is_resident(subject.mode) {
                row.add_usage(usage);
            }
        }
        Ok(())
    }

    /// Once more with qmqp-source(1), where our own generator has said how many messages a load is.
    pub fn second_opinion(&mut self, place: &Place, clients: usize) -> io::Result<()> {
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

    pub fn meter(&mut self, place: &Place, shape: Shape) -> io::Result<()> {
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

    pub fn growth(&mut self, place: &Place) -> io::Result<()> {
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
    pub fn count(&mut self, place: &Place) {
        let request = SMALL.request();
        for subject in &place.subjects {
            let row = key(place, SMALL, 1, subject);
            let calls = match &subject.program {
                Some(program) => {
                    count::system_calls(program, &self.programs, &self.scratch, &request)
                }
                None if subject.mode == Mode::Master => {
                    count::resident_calls(&place.instance, subject.port, &self.scratch, &request)
                }
                None => continue,
            };
            self.keep(calls, "system calls", row, |samples| &mut samples.calls);
            // valgrind's own calls are not in the filter.
            let confined = matches!(subject.server, Server::Ours(_));
            if let Some(program) = subject.program.as_ref().filter(|_| !confined) {
                let count = count::instructions(program, &self.programs, &self.scratch, &request);
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
        Mode::Stdin | Mode::Master | Mode::Accept | Mode::SystemdAccept => {
            Duration::from_millis(20)
        }
    };
    sleep(after);
    Ok(())
}

/// Whether what a message costs is what the server as a whole has used.
fn is_resident(mode: Mode) -> bool {
    match mode {
        Mode::Master | Mode::Accept | Mode::SystemdAccept => true,
        Mode::Stdin | Mode::Systemd => false,
    }
}

/// Whether `--quick` measures this throughput: everything with the small message, and else what a figure needs.
fn is_quick(first: bool, subject: &Subject, shape: Shape, clients: usize) -> bool {
    if !first {
        let file = matches!(
            subject.server,
            Server::Ours(Method::File) | Server::Open(Method::File)
        );
        return file || subject.mode == Mode::Master;
    }
    if shape == SMALL && clients == 1 {
        return true;
    }
    match subject.server {
        Server::FloorAStatic | Server::FloorB | Server::Mailfront => false,
        Server::Ours(Method::Qmail) | Server::Open(Method::Qmail) => false,
        _ if LARGE.contains(&shape) => subject.mode == Mode::Master,
        _ => subject.mode != Mode::Systemd || clients <= 10,
    }
}

/// What a server has used so far: under master its resident processes, and else the launcher or the process that accepts;
/// with all their children.
fn whole_usage(place: &Place, subject: &Subject) -> io::Result<Usage> {
    match subject.root {
        None => measure::used(&place.instance.residents(subject.port)?),
        Some(root) => Ok(measure::used_by_all(&measure::tree(root))),
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
