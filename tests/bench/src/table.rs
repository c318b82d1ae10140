//! The table: a row for each server under each load, with its ratios to Postfix in the same mode and to its floor.

use crate::load::Shape;
use crate::results::{Key, Results, Samples, median, spread};
use crate::servers::{Mode, Server};

const HEAD: &str = "\
where  message       clients  under      server           |   msg/s (least-most)     x Pfix x floor  source |     p50     p95     p99 ms \
|  CPU ms =  user  +  sys  (least-most)       x Pfix x floor |   peak KiB  faults   calls    M instr";

pub fn print(results: &Results) {
    println!("{HEAD}");
    let mut last = None;
    for (&key, samples) in &results.rows {
        let group = (key.place, key.shape, key.clients);
        if last.is_some_and(|last| last != group) {
            println!();
        }
        last = Some(group);
        println!("{}", row(results, key, samples));
    }
    println!(
        "\nMedians of the rounds, and the least and the greatest of them. x Pfix: by Postfix in the same mode. x floor: by \
         floor A, linked dynamically (cleanup), or floor B (file, qmail); both under tcpserver. source: msg/s by \
         qmqp-source. Under master, CPU and faults are those of the resident processes and their children, over all rounds. \
         open: with qmqpd_sandbox = no. Instructions are those outside of the kernel, by valgrind."
    );
}

fn row(results: &Results, key: Key, samples: &Samples) -> String {
    let postfix = key.of(key.mode, Server::Postfix);
    let floor = key.of(Mode::Stdin, key.server.floor());
    let ratio = |by: Key, of: fn(&Samples) -> &Vec<f64>| {
        let itself = by == key;
        number(
            if itself {
                None
            } else {
                results.ratio(key, by, of)
            },
            2,
        )
    };
    let middle = |values: &[f64], digits| number(median(values), digits);
    format!(
        "{:<6} {:<13} {:>7}  {:<10} {:<16} | {:>7} {:<16} {:>6} {:>7} {:>7} | {:>7} {:>7} {:>7}    | {:>7} = {:>6} + {:>6} {:<17} {:>7} {:>7} | {:>10} {:>7} {:>7} {:>10}",
        key.place,
        name(key.shape),
        key.clients,
        key.mode.name(),
        key.server.name(),
        middle(&samples.rate, 1),
        range(&samples.rate, 1),
        ratio(postfix, |samples| &samples.rate),
        ratio(floor, |samples| &samples.rate),
        middle(&samples.source, 1),
        middle(&samples.p50, 2),
        middle(&samples.p95, 2),
        middle(&samples.p99, 2),
        middle(&samples.cpu, 3),
        middle(&samples.user, 3),
        middle(&samples.system, 3),
        range(&samples.cpu_rounds, 3),
        ratio(postfix, |samples| &samples.cpu),
        ratio(floor, |samples| &samples.cpu),
        number(median(&samples.memory).map(|bytes| bytes / 1024.0), 0),
        middle(&samples.faults, 0),
        middle(&samples.calls, 1),
        number(median(&samples.instructions).map(|count| count / 1e6), 3),
    )
}

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
    spread(values).map_or(String::new(), |(least, greatest)| {
        format!("({least:.digits$}-{greatest:.digits$})")
    })
}
