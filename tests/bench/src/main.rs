//! Measures qmqpd beside Postfix's own and beside floors that do the least there is to do.
//!
//! usage: qmqpd-bench [--quick] OURS [tmpfs=DIRECTORY] [disk=DIRECTORY]
//!
//! OURS is our program. In each directory a Postfix of its own is made, with every server around it. All servers take turns (A B C A B C), so that a neighbour on the machine disturbs them alike. Run it by
//! `scripts/bench`.

mod count;
mod header;
mod instance;
mod lists;
mod load;
mod measure;
mod programs;
mod results;
mod servers;
mod systemd;
mod table;
mod targets;
mod turns;

use std::fs;
use std::io::{self, Error};
use std::num::NonZero;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use load::Shape;
use programs::Programs;
use results::Results;
use servers::Place;
use turns::Bench;

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

/// So many clients at a time are measured with the servers of [`turns::CROWDED`] only.
pub const CROWDS: [usize; 2] = [100, 1000];

/// Small messages first: with the fifty clients Postfix starts processes that stay.
const LOADS: [(Shape, usize); 8] = [
    (SMALL, 1),
    (SMALL, 10),
    (SMALL, 50),
    (SMALL, CROWDS[0]),
    (SMALL, CROWDS[1]),
    (LIST, 1),
    (LARGE[0], 1),
    (LARGE[1], 1),
];

/// How long everything takes.
pub struct Plan {
    pub quick: bool,
    pub rounds: usize,
    /// Of one load on one server.
    pub time: Duration,
    /// Metered sessions in a round, of the small message.
    pub sessions: usize,
    /// Rounds of what is a hundred times as large.
    pub growth_rounds: usize,
}

const FULL: Plan = Plan {
    quick: false,
    rounds: 5,
    time: Duration::from_millis(400),
    sessions: 50,
    growth_rounds: 5,
};
const QUICK: Plan = Plan {
    quick: true,
    rounds: 5,
    time: Duration::from_millis(100),
    sessions: 20,
    growth_rounds: 1,
};

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
            "usage: qmqpd-bench [--quick] OURS [tmpfs=DIRECTORY] [disk=DIRECTORY]",
        ));
    };
    let places = places.iter().map(|place| match place.split_once('=') {
        Some(("tmpfs", directory)) => Ok(("tmpfs", Path::new(directory))),
        Some(("disk", directory)) => Ok(("disk", Path::new(directory))),
        _ => Err(Error::other(format!("{place}: neither tmpfs nor disk"))),
    });
    let places: Vec<(&'static str, &Path)> = places.collect::<io::Result<_>>()?;
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
        lists: Vec::new(),
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
    targets::Figures::print(&bench.results, &names, &bench.lists);
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
            let is_crowd = CROWDS.contains(&clients);
            let of_disk = [(SMALL, 1), (LIST, 1)].contains(&(shape, clients));
            if first || (!self.plan.quick && !is_crowd) || of_disk {
                eprintln!("{name}: {}, {clients} at a time", table::name(shape));
                self.load(&place, first, shape, clients)?;
            }
            if first && !self.plan.quick && shape == SMALL && !is_crowd {
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
            eprintln!("{name}: long lists");
            let lists = lists::directory(&directory.join("postfix"))?;
            self.lists = self.lists(&place, &lists)?;
            eprintln!("{name}: the header of a proxy");
            let of_header = self.header(&place)?;
            self.lists.extend(of_header);
        }
        Ok(())
    }
}
