//! The table: a row for each server under each load, with its ratios to Postfix in the same mode and to its floor.

use crate::load::Shape;
use crate::results::{Key, Results, Samples, median, spread};
use crate::servers::Server;

const COLUMNS: [&str; 24] = [
    "where", "message", "clients", "under", "server", "msg/s", "(range)", "/Postfix", "/floor",
    "source", "p50 ms", "p95", "p99", "whole ms", "CPU ms", "(range)", "/Postfix", "/floor",
    "user", "sys", "peak KiB", "faults", "calls", "M instr",
];

/// The columns that are words, and not numbers.
const WORDS: usize = 5;

const LEGEND: &str = "
One message each, medians of the rounds with their range. /Postfix: by Postfix in the same mode. /floor: by floor A,
linked dynamically (cleanup), or floor B (file, qmail), both under tcpserver; by floor A as a resident process with
children under master and --accept. whole: CPU of the launcher, or the process that accepts, and all its children. source: msg/s by qmqp-source.
CPU, peak memory and faults under tcpserver: by wait4, of processes that are started like its own. CPU and faults under
master and --accept: resident processes and their children, all rounds together. calls: system calls, by strace. M instr: million
instructions outside of the kernel, by valgrind, whose own calls the sandbox does not allow. open: qmqpd_sandbox = no.";

pub fn print(results: &Results) {
    let rows: Vec<_> = results
        .rows
        .iter()
        .map(|(&key, samples)| (key, row(results, key, samples)))
        .collect();
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| {
            let cells = rows.iter().map(|(_, row)| row[column].len());
            cells.fold(COLUMNS[column].len(), usize::max)
        })
        .collect();
    println!("{}", line(&COLUMNS.map(str::to_owned), &widths));
    let mut last = None;
    for (key, row) in rows {
        let group = (key.place, key.shape, key.clients);
        if last.is_some_and(|last| last != group) {
            println!();
        }
        last = Some(group);
        println!("{}", line(&row, &widths));
    }
    println!("{LEGEND}");
}

fn line(cells: &[String; COLUMNS.len()], widths: &[usize]) -> String {
    let cells = cells.iter().zip(widths).enumerate();
    let padded = cells.map(|(column, (cell, &width))| {
        if column < WORDS {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        }
    });
    padded.collect::<Vec<_>>().join("  ")
}

fn row(results: &Results, key: Key, samples: &Samples) -> [String; COLUMNS.len()] {
    let postfix = key.of(key.mode, Server::Postfix);
    let floor = key.of(key.server.floor_mode(key.mode), key.server.floor());
    let ratio = |by: Key, of: fn(&Samples) -> &Vec<f64>| {
        let other = (by != key).then(|| results.ratio(key, by, of));
        number(other.flatten(), 2)
    };
    let middle = |values: &[f64], scale: f64, digits| {
        number(median(values).map(|value| value / scale), digits)
    };
    [
        key.place.to_owned(),
        name(key.shape),
        key.clients.to_string(),
        key.mode.name().to_owned(),
        key.server.name().to_owned(),
        middle(&samples.rate, 1.0, 1),
        range(&samples.rate, 1),
        ratio(postfix, |samples| &samples.rate),
        ratio(floor, |samples| &samples.rate),
        middle(&samples.source, 1.0, 1),
        middle(&samples.p50, 1.0, 2),
        middle(&samples.p95, 1.0, 2),
        middle(&samples.p99, 1.0, 2),
        middle(&samples.whole, 1.0, 3),
        middle(&samples.cpu, 1.0, 3),
        range(&samples.cpu_rounds, 3),
        ratio(postfix, |samples| &samples.cpu),
        ratio(floor, |samples| &samples.cpu),
        middle(&samples.user, 1.0, 3),
        middle(&samples.system, 1.0, 3),
        middle(&samples.memory, 1024.0, 0),
        middle(&samples.faults, 1.0, 0),
        middle(&samples.calls, 1.0, 0),
        middle(&samples.instructions, 1e6, 3),
    ]
}

/// What a message is called.
pub fn name(shape: Shape) -> String {
    let size = match shape.content {
        size if size < 1 << 20 => format!("{} KiB", size >> 10),
        size => format!("{} MiB", size >> 20),
    };
    if shape.recipients == 1 {
        size
    } else {
        format!("{} rcpt", shape.recipients)
    }
}

pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

fn range(values: &[f64], digits: usize) -> String {
    spread(values).map_or("-".to_owned(), |(least, greatest)| {
        format!("({least:.digits$}-{greatest:.digits$})")
    })
}
