//! The figures that are aimed at, each with and without `qmqpd_sandbox`.

use crate::lists::Figure;
use crate::load::Shape;
use crate::results::{Key, Results, Samples, median};
use crate::servers::Method::{Cleanup, File};
use crate::servers::{Mode, Server};
use crate::table::number;
use crate::{LARGE, LIST, LISTS, SIZES, SMALL};

#[derive(Clone, Copy)]
pub enum Target {
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

const RATE: Of = |samples| &samples.rate;
const P50: Of = |samples| &samples.p50;
const CPU: Of = |samples| &samples.cpu;
const WHOLE: Of = |samples| &samples.whole;
const ELAPSED: Of = |samples| &samples.elapsed;

/// Where a figure is looked up.
pub struct Figures<'r> {
    results: &'r Results,
    /// Where all but the disk's own are measured.
    place: &'static str,
}

impl Figures<'_> {
    pub fn print(results: &Results, places: &[&'static str], lists: &[Figure]) {
        let Some(&place) = places.first() else {
            return;
        };
        let figures = Figures { results, place };
        println!(
            "{:<84} {:>8} {:>9} {:<8} {:>9}",
            "figure", "target", "open", "", "confined"
        );
        figures.sandbox();
        figures.stdin();
        figures.master();
        figures.accept();
        figures.large();
        for place in places {
            figures.file(place);
        }
        figures.growth();
        for Figure {
            what,
            target,
            value,
        } in lists
        {
            let (limit, verdict) = (target.text(), target.verdict(*value));
            let (value, none) = (number(*value, 2), "");
            println!("{what:<84} {limit:>8} {none:>9} {none:<8} {value:>9} {verdict}");
        }
    }

    fn key(&self, shape: Shape, clients: usize, mode: Mode, server: Server) -> Key {
        let place = self.place;
        Key {
            place,
            shape,
            clients,
            mode,
            server,
        }
    }

    /// What was measured of a confined server, and of the same one without the sandbox.
    fn line(
        &self,
        what: &str,
        target: Target,
        digits: usize,
        of: impl Fn(Server) -> Option<f64>,
        server: Server,
    ) {
        let (open, confined) = (of(server.open()), of(server));
        println!(
            "{what:<84} {:>8} {:>9} {:<8} {:>9} {}",
            target.text(),
            number(open, digits),
            target.verdict(open),
            number(confined, digits),
            target.verdict(confined),
        );
    }

    /// The median of one row by that of another.
    fn ratio(&self, what: &str, target: Target, key: Key, by: (Mode, Server), of: Of) {
        let by = key.of(by.0, by.1);
        let ratio = |server| self.results.ratio(key.of(key.mode, server), by, of);
        self.line(what, target, 2, ratio, key.server);
    }

    /// Round by round, since two servers in turns have the same neighbours.
    fn sandbox(&self) {
        let ours = Server::Ours(Cleanup);
        for (mode, name) in [(Mode::Stdin, "tcpserver"), (Mode::Master, "master's child")] {
            for (what, of) in [("own CPU", CPU), ("p50", P50)] {
                let rounds = |server| {
                    Some(of(self
                        .results
                        .rows
                        .get(&self.key(SMALL, 1, mode, server))?))
                };
                let price = |server| {
                    let pairs = rounds(server)?.iter().zip(rounds(ours.open())?);
                    median(
                        &pairs
                            .map(|(confined, open)| confined - open)
                            .collect::<Vec<_>>(),
                    )
                };
                let confined = |server| (server == ours).then(|| price(server)).flatten();
                let what = format!("0. price of the sandbox, {name}, {what}, ms");
                self.line(&what, Target::AtMost(0.15), 3, confined, ours);
            }
        }
    }

    fn stdin(&self) {
        let key = self.key(SMALL, 1, Mode::Stdin, Server::Ours(Cleanup));
        let by = |what: &str, target, server, of| {
            let what = format!("1. cleanup, 4 KiB, tcpserver: {what}");
            self.ratio(&what, target, key, (Mode::Stdin, server), of);
        };
        let most = Target::AtMost(1.5);
        by("own CPU by floor A", most, Server::FloorA, CPU);
        by(
            "own CPU by floor A, static",
            Target::None,
            Server::FloorAStatic,
            CPU,
        );
        by("p50 by floor A", most, Server::FloorA, P50);
        by(
            "p50 by floor A, static",
            Target::None,
            Server::FloorAStatic,
            P50,
        );
        by(
            "throughput by Postfix's qmqpd -S",
            Target::None,
            Server::Postfix,
            RATE,
        );
        let count = |of: Of| move |server| self.results.median(key.of(Mode::Stdin, server), of);
        let millions = |server| Some(count(|samples| &samples.instructions)(server)? / 1e6);
        let what = "1. million instructions of a session";
        self.line(what, Target::AtMost(0.7), 3, millions, key.server);
        let what = "1. system calls of a session";
        self.line(
            what,
            Target::AtMost(110.0),
            0,
            count(|samples| &samples.calls),
            key.server,
        );
    }

    fn master(&self) {
        let by_postfix = |what: &str, target, clients, of| {
            let what = format!("2. cleanup, 4 KiB, master: {what}");
            let key = self.key(SMALL, clients, Mode::Master, Server::Ours(Cleanup));
            self.ratio(&what, target, key, (Mode::Master, Server::Postfix), of);
        };
        // No process for each connection costs as little as none.
        for (clients, name) in [(1, "1 client"), (10, "10 clients")] {
            let what = format!("throughput by Postfix's, {name}");
            by_postfix(&what, Target::None, clients, RATE);
        }
        by_postfix("own CPU by Postfix's", Target::None, 1, CPU);
        let key = self.key(SMALL, 1, Mode::Master, Server::Ours(Cleanup));
        let floor = (Mode::Master, Server::FloorA);
        let what = "2. cleanup, 4 KiB, master: own CPU by floor A, resident";
        self.ratio(what, Target::AtMost(1.25), key, floor, CPU);
        let what = "2. cleanup, 4 KiB, master: throughput by floor A, resident";
        self.ratio(what, Target::AtLeast(0.85), key, floor, RATE);
    }

    /// A process of ours that accepts, behind a launcher that listens.
    fn accept(&self) {
        let ours = Server::Ours(Cleanup);
        for (clients, least) in [(1, 1.6), (10, 2.0), (50, 2.0), (100, 2.0), (1000, 2.0)] {
            let key = self.key(SMALL, clients, Mode::Accept, ours);
            let name = format!("6. cleanup, 4 KiB, --accept, {clients} clients");
            let same = (Mode::Stdin, ours);
            let what = format!("{name}: whole CPU by tcpserver with the same program");
            self.ratio(&what, Target::AtMost(0.5), key, same, WHOLE);
            let what = format!("{name}: throughput by that");
            self.ratio(&what, Target::AtLeast(least), key, same, RATE);
            let floor = (Mode::Stdin, Server::FloorA);
            let what = format!("{name}: throughput by floor A under tcpserver");
            self.ratio(&what, Target::AtLeast(1.0), key, floor, RATE);
            let floor = (Mode::Accept, Server::FloorA);
            let what = format!("{name}: whole CPU by floor A, resident");
            self.ratio(&what, Target::None, key, floor, WHOLE);
        }
        for clients in [1, 10] {
            let key = self.key(SMALL, clients, Mode::SystemdAccept, ours);
            let name = format!("7. cleanup, 4 KiB, systemd, {clients} clients");
            let unit = (Mode::Systemd, ours);
            let what = format!("{name}: whole CPU of --accept by Accept=yes");
            self.ratio(&what, Target::AtMost(0.033), key, unit, WHOLE);
            let what = format!("{name}: p50 of --accept by Accept=yes");
            self.ratio(&what, Target::AtMost(0.05), key, unit, P50);
        }
    }

    fn large(&self) {
        for shape in LARGE {
            let size = shape.content >> 20;
            let stdin = self.key(shape, 1, Mode::Stdin, Server::Ours(Cleanup));
            let master = self.key(shape, 1, Mode::Master, Server::Ours(Cleanup));
            let what = format!("3. cleanup, {size} MiB: own CPU by floor A, tcpserver");
            self.ratio(
                &what,
                Target::AtMost(1.2),
                stdin,
                (Mode::Stdin, Server::FloorA),
                CPU,
            );
            let what = format!("3. cleanup, {size} MiB: own CPU by Postfix's, master");
            self.ratio(
                &what,
                Target::AtMost(1.0),
                master,
                (Mode::Master, Server::Postfix),
                CPU,
            );
            self.memory(&format!("3. cleanup, {size} MiB"), stdin);
        }
    }

    fn memory(&self, what: &str, key: Key) {
        let request = key.shape.request().len() as f64;
        let beyond = |server| {
            let peak = self
                .results
                .median(key.of(key.mode, server), |samples| &samples.memory)?;
            Some((peak - request) / f64::from(1 << 20))
        };
        let what = format!("{what}: peak memory beyond the request, MiB");
        self.line(&what, Target::AtMost(4.0), 2, beyond, key.server);
    }

    fn file(&self, place: &'static str) {
        for (shape, name, target) in [(SMALL, "4 KiB", 1.5), (LIST, "1000 recipients", 10.0)] {
            for mode in [Mode::Master, Mode::Stdin] {
                let key = Key {
                    place,
                    ..self.key(shape, 1, mode, Server::Ours(File))
                };
                let under = mode.name();
                let what = format!(
                    "4. file, {name}, {place}: throughput under {under} by Postfix's under master"
                );
                self.ratio(
                    &what,
                    Target::AtLeast(target),
                    key,
                    (Mode::Master, Server::Postfix),
                    RATE,
                );
            }
        }
    }

    /// Ten times as much may take twelve times as long.
    fn growth(&self) {
        for (method, name) in [(Cleanup, "cleanup"), (File, "file")] {
            let ours = Server::Ours(method);
            let key = |shape, server| self.key(shape, 1, Mode::Stdin, server);
            for (shapes, unit) in [(SIZES, "MiB"), (LISTS, "thousand recipients")] {
                for (what, of) in [("time", ELAPSED), ("own CPU", CPU)] {
                    for (step, from) in shapes.windows(2).zip([1, 10]) {
                        let row = |index: usize, server| key(step[index], server);
                        let ratio = |server| self.results.ratio(row(1, server), row(0, server), of);
                        let what = format!("5. {name}, {} {unit} by {from}: {what}", 10 * from);
                        self.line(&what, Target::AtMost(12.0), 2, ratio, ours);
                    }
                }
                self.memory(&format!("5. {name}, 100 {unit}"), key(shapes[2], ours));
            }
        }
    }
}
