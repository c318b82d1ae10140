//! What the header of a proxy costs: the same program with it and without, in turns.
//!
//! With `--accept` clients are counted here, so the price of asking for that is in it.

use std::ffi::OsString;
use std::io::{self, Error};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::Duration;

use crate::SMALL;
use crate::count;
use crate::instance::until;
use crate::lists::Figure;
use crate::load::{self, Load};
use crate::measure::{self, Metered};
use crate::programs::Program;
use crate::results::median;
use crate::servers::{Method, Mode, Place, Server};
use crate::targets::Target;
use crate::turns::Bench;

const SERVER: Server = Server::Ours(Method::File);

/// Version 2, PROXY, TCP over IPv4: from 127.0.0.1, port 56324, to 127.0.0.1, port 628.
const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\xdc\x04\x02\x74";

const BEHIND: [&str; 2] = [
    "qmqpd_upstream_proxy_protocol=haproxy",
    "qmqpd_upstream_proxy_clients=127.0.0.1",
];

/// Every client has the same address, and comes alone.
const COUNTED: &str = "qmqpd_client_connection_count_limit=40";

/// A process that accepts, and ends with the value.
struct Accepting {
    child: Child,
    port: u16,
}

impl Accepting {
    fn start(program: &Program) -> io::Result<Accepting> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let mut command = program.command(std::iter::empty::<OsString>())?;
        let child = command.stdin(OwnedFd::from(listener)).spawn()?;
        Ok(Accepting { child, port })
    }

    /// Returns when the last child has been waited for.
    fn settle(&self) {
        let pid = self.child.id();
        until(Duration::from_secs(5), || measure::tree(pid).len() == 1);
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The program without a proxy and behind one, each with what is sent to it.
struct Pair([(Program, Vec<u8>); 2]);

impl Bench {
    pub fn header(&self, place: &Place) -> io::Result<Vec<Figure>> {
        let figure = |what: &str, value: f64| Figure {
            what: format!("8. PROXY header, {what}"),
            target: Target::None,
            value: Some(value),
        };
        let single = self.pair(place, Mode::Stdin);
        let accept = self.pair(place, Mode::Accept);
        let figures = vec![
            figure(
                "a process for one client: system calls more",
                self.calls_of_one(&single)?,
            ),
            figure(
                "a process for one client: own CPU by that without",
                self.cpu_of_one(place, &single)?,
            ),
            figure(
                "--accept that counts: system calls more",
                self.calls_of_all(&accept)?,
            ),
            figure(
                "--accept that counts: CPU in all by that without",
                self.cpu_of_all(place, &accept)?,
            ),
        ];
        place.instance.clear()?;
        Ok(figures)
    }

    fn pair(&self, place: &Place, mode: Mode) -> Pair {
        let program = || {
            let program = Program::new(mode, SERVER, &self.programs, &place.instance);
            program.with_option(COUNTED)
        };
        let behind = BEHIND
            .iter()
            .fold(program(), |program, option| program.with_option(option));
        let request = SMALL.request();
        let with_header = [HEADER, &request].concat();
        Pair([(program(), request), (behind, with_header)])
    }

    fn calls_of_one(&self, Pair(pair): &Pair) -> io::Result<f64> {
        let [without, with] = pair.each_ref().map(|(program, bytes)| {
            count::system_calls(program, &self.programs, &self.scratch, bytes)
        });
        Ok(with? - without?)
    }

    fn cpu_of_one(&self, place: &Place, Pair(pair): &Pair) -> io::Result<f64> {
        let mut cpu = [Vec::new(), Vec::new()];
        for _ in 0..self.plan.rounds {
            for ((program, bytes), cpu) in pair.iter().zip(&mut cpu) {
                let mut metered = Metered::start(program, &self.programs, &[])?;
                for _ in 0..self.plan.sessions {
                    cpu.push(metered.session(bytes)?.usage.cpu());
                }
                place.instance.clear()?;
            }
        }
        let [without, with] = cpu.map(|cpu| median(&cpu));
        let ratio = with.zip(without).map(|(with, without)| with / without);
        ratio.ok_or_else(|| Error::other("no sessions"))
    }

    fn calls_of_all(&self, Pair(pair): &Pair) -> io::Result<f64> {
        let [without, with] = pair.each_ref().map(|(program, bytes)| {
            let accepting = Accepting::start(program)?;
            // The process is there, and has no child.
            load::message(accepting.port, bytes)?;
            accepting.settle();
            count::calls_of(
                &[accepting.child.id()],
                accepting.port,
                &self.scratch,
                bytes,
            )
        });
        Ok(with? - without?)
    }

    fn cpu_of_all(&self, place: &Place, Pair(pair): &Pair) -> io::Result<f64> {
        let load = Load {
            clients: 1,
            time: self.plan.time,
            least: 1,
        };
        let [without, with] = pair
            .each_ref()
            .map(|(program, _)| Accepting::start(program));
        let servers = [without?, with?];
        // Over all rounds: /proc is too coarse for one.
        let mut cpu = [0.0, 0.0];
        for _ in 0..self.plan.rounds {
            for ((accepting, (_, bytes)), cpu) in servers.iter().zip(pair).zip(&mut cpu) {
                let pid = accepting.child.id();
                load::message(accepting.port, bytes)?;
                accepting.settle();
                let before = measure::used(&[pid])?;
                let sent = load::send(accepting.port, bytes, load)?;
                accepting.settle();
                let used = measure::used(&[pid])?.since(before);
                *cpu += used.per(sent.latencies.len()).cpu();
                place.instance.clear()?;
            }
        }
        match cpu {
            [without, with] if without > 0.0 => Ok(with / without),
            _ => Err(Error::other("a process that takes no time")),
        }
    }
}
