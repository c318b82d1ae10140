//! The figures that are aimed at, each with and without `qmqpd_sandbox`.

use crate::load::Shape;
use crate::results::{Key, Results, Samples, median};
use crate::servers::Method::{Cleanup, File};
use crate::servers::{Method, Mode, Server};
use crate::table::number;
use crate::{LARGE, LIST, LISTS, SIZES, SMALL};

#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// To be seen only.
    None,
}

impl Target {
    fn text(self) -> String {
        match self {
            Target::AtMost(limit) => format!("<= {limit}"),
            Target::AtLeast(limit) => format!(">= {limit}"),
            Target::None => String::new(),
        }
    }

    fn verdict(self, measured: Option<f64>) -> &'static str {
        match (self, measured) {
            (Target::None, _) => "",
            (_, None) => "not run",
            (Target::AtMost(limit), Some(value)) if value <= limit => "met",
            (Target::AtLeast(limit), Some(value)) if value >= limit => "met",
            _ => "missed",
        }
    }
}

type Of = fn(&Samples) -> &Vec<f64>;

/// Prints the list, and the figures are looked up as it goes.
pub struct Figures<'r> {
    results: &'r Results,
    /// Where all but the disk's own are measured.
    place: &'static str,
}

impl Figures<'_> {
    pub fn print(results: &Results, places: &[&'static str]) {
        let Some(&place) = places.first() else {
            return;
        };
        let figures = Figures { results, place };
        println!(
            "{:<78} {:>8} {:>9} {:<8} {:>9} {:<8}",
            "figure", "target", "open", "", "confined", ""
        );
        figures.sandbox();
        figures.stdin();
        figures.master();
        figures.large();
        for place in places {
            figures.file(place);
        }
        figures.growth();
    }

    fn key(&self, shape: Shape, clients: usize, mode: Mode, server: Server) -> Key {
        Key {
            place: self.place,
            shape,
            clients,
            mode,
            server,
        }
    }

    fn line(
        &self,
        what: &str,
        target: Target,
        digits: usize,
        open: Option<f64>,
        confined: Option<f64>,
    ) {
        println!(
            "{what:<78} {:>8} {:>9} {:<8} {:>9} {:<8}",
            target.text(),
            number(open, digits),
            target.verdict(open),
            number(confined, digits),
            target.verdict(confined),
        );
    }

    /// One figure of a method, by that of another server.
    fn ratio(
        &self,
        what: &str,
        target: Target,
        (key, method): (Key, Method),
        by: (Mode, Server),
        of: Of,
    ) {
        let against = key.of(by.0, by.1);
        let ratio = |server| self.results.ratio(key.of(key.mode, server), against, of);
        self.line(
            what,
            target,
            2,
            ratio(Server::Open(method)),
            ratio(Server::Ours(method)),
        );
    }

    /// Round by round, since two servers in turns have the same neighbours.
    fn sandbox(&self) {
        for (mode, name) in [(Mode::Stdin, "tcpserver"), (Mode::Master, "master's child")] {
            let values: [(&str, Of); 2] = [
                ("own CPU", |samples| &samples.cpu),
                ("p50", |samples| &samples.p50),
            ];
            for (what, of) in values {
                let rows = [Server::Ours(Cleanup), Server::Open(Cleanup)]
                    .map(|server| self.results.rows.get(&self.key(SMALL, 1, mode, server)));
                let price = match rows {
                    [Some(confined), Some(open)] => {
                        let pairs = of(confined).iter().zip(of(open));
                        median(
                            &pairs
                                .map(|(confined, open)| confined - open)
                                .collect::<Vec<_>>(),
                        )
                    }
                    _ => None,
                };
                let what = format!("0. price of the sandbox, {name}, {what}, ms");
                self.line(&what, Target::AtMost(0.15), 3, None, price);
            }
        }
    }

    fn stdin(&self) {
        let key = self.key(SMALL, 1, Mode::Stdin, Server::Ours(Cleanup));
        let by = |what: &str, target, server, of| {
            let what = format!("1. tcpserver, cleanup, 4 KiB: {what}");
            self.ratio(&what, target, (key, Cleanup), (Mode::Stdin, server), of);
        };
        let (most, fixed) = (Target::AtMost(1.5), Server::FloorAStatic);
        by("own CPU by floor A", most, Server::FloorA, |row| &row.cpu);
        by("own CPU by floor A, static", Target::None, fixed, |row| {
            &row.cpu
        });
        by("p50 by floor A", most, Server::FloorA, |row| &row.p50);
        by("p50 by floor A, static", Target::None, fixed, |row| {
            &row.p50
        });
        let five = Target::AtLeast(5.0);
        by(
            "throughput by Postfix's qmqpd -S",
            five,
            Server::Postfix,
            |row| &row.rate,
        );
        let count = |of: Of, scale: f64| {
            [Server::Open(Cleanup), Server::Ours(Cleanup)].map(|server| {
                let count = self.results.median(key.of(Mode::Stdin, server), of);
                count.map(|count| count / scale)
            })
        };
        let [open, confined] = count(|row| &row.instructions, 1e6);
        let what = "1. million instructions of a session";
        self.line(what, Target::AtMost(0.7), 3, open, confined);
        let [open, confined] = count(|row| &row.calls, 1.0);
        let what = "1. system calls of a session";
        self.line(what, Target::AtMost(110.0), 0, open, confined);
    }

    fn master(&self) {
        let postfix = (Mode::Master, Server::Postfix);
        let ours = |clients| {
            (
                self.key(SMALL, clients, Mode::Master, Server::Ours(Cleanup)),
                Cleanup,
            )
        };
        let what = "2. master, cleanup, 4 KiB: throughput by Postfix's, 1 client";
        self.ratio(what, Target::AtLeast(0.9), ours(1), postfix, |row| {
            &row.rate
        });
        self.ratio(
            "2.   10 clients",
            Target::AtLeast(1.0),
            ours(10),
            postfix,
            |row| &row.rate,
        );
        self.ratio(
            "2.   own CPU by Postfix's, 1 client",
            Target::AtMost(2.0),
            ours(1),
            postfix,
            |row| &row.cpu,
        );
    }

    fn large(&self) {
        for shape in LARGE {
            let size = shape.content >> 20;
            let stdin = (
                self.key(shape, 1, Mode::Stdin, Server::Ours(Cleanup)),
                Cleanup,
            );
            let master = (
                self.key(shape, 1, Mode::Master, Server::Ours(Cleanup)),
                Cleanup,
            );
            let what = format!("3. cleanup, {size} MiB: own CPU by floor A, tcpserver");
            self.ratio(
                &what,
                Target::AtMost(1.2),
                stdin,
                (Mode::Stdin, Server::FloorA),
                |row| &row.cpu,
            );
            let postfix = (Mode::Master, Server::Postfix);
            self.ratio(
                "3.   own CPU by Postfix's, master",
                Target::AtMost(1.0),
                master,
                postfix,
                |row| &row.cpu,
            );
            self.memory("3.   peak memory beyond the request, MiB", stdin.0, Cleanup);
        }
    }

    fn memory(&self, what: &str, key: Key, method: Method) {
        let request = key.shape.request().len() as f64;
        let beyond = |server| {
            let peak = self
                .results
                .median(key.of(key.mode, server), |row| &row.memory)?;
            Some((peak - request) / f64::from(1 << 20))
        };
        let (open, confined) = (beyond(Server::Open(method)), beyond(Server::Ours(method)));
        self.line(what, Target::AtMost(4.0), 2, open, confined);
    }

    fn file(&self, place: &'static str) {
        for (shape, name, target) in [(SMALL, "4 KiB", 1.5), (LIST, "1000 recipients", 10.0)] {
            for mode in [Mode::Master, Mode::Stdin] {
                let key = Key {
                    place,
                    ..self.key(shape, 1, mode, Server::Ours(File))
                };
                let what = format!(
                    "4. file, {name}, {place}: throughput under {} by Postfix's under master",
                    mode.name()
                );
                let postfix = (Mode::Master, Server::Postfix);
                self.ratio(
                    &what,
                    Target::AtLeast(target),
                    (key, File),
                    postfix,
                    |row| &row.rate,
                );
            }
        }
    }

    /// Ten times as much may take twelve times as long.
    fn growth(&self) {
        let values: [(&str, Of); 2] = [("time", |row| &row.elapsed), ("own CPU", |row| &row.cpu)];
        for (method, name) in [(Cleanup, "cleanup"), (File, "file")] {
            for (shapes, unit) in [(SIZES, "MiB"), (LISTS, "thousand recipients")] {
                let row = |shape| self.key(shape, 1, Mode::Stdin, Server::Ours(method));
                for (what, of) in values {
                    for (step, from) in shapes.windows(2).zip([1, 10]) {
                        let ratio = self.results.ratio(row(step[1]), row(step[0]), of);
                        let what = format!("5. {name}, {} {unit} by {from}: {what}", 10 * from);
                        self.line(&what, Target::AtMost(12.0), 2, None, ratio);
                    }
                }
                let what = format!("5. {name}, 100 {unit}: peak memory beyond the request, MiB");
                self.memory(&what, row(shapes[2]), method);
            }
        }
    }
}
