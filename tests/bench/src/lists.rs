//! Long lists and long files of parameters, beside short ones.
//!
//! The client is in the last line of each list. A resident process has read its table before the first client, and what
//! that took is not counted.

use std::fs::{self, File};
use std::io::{self, BufWriter, Error, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::SMALL;
use crate::count;
use crate::instance::{self, Service};
use crate::load::{self, Load};
use crate::measure::{self, Metered};
use crate::programs::{Program, Programs, options};
use crate::results::median;
use crate::servers::{Method, Mode, Place, Server};
use crate::targets::Target;
use crate::turns::Bench;

const SERVER: Server = Server::Ours(Method::File);

/// Entries of the list that a resident process has, and of the one that is read for each client.
const KEPT: usize = 50_000;
const READ: usize = 100_000;

/// Where the client is.
const CLIENT: &str = "127.0.0.1";

/// What a process for one client may take for a list, by what postmap(1) takes for its table: 10, 12 and 12 milliseconds on
/// a machine where the first version took 31, 61 and 26, which were 0.66, 0.45 and 0.21 of what postmap took.
const CIDR: f64 = 0.21;
const TEXTHASH: f64 = 0.09;
const FILE: f64 = 0.10;

/// Messages in a round of a resident process. The kernel shows processor time in steps of 10 milliseconds.
const MESSAGES: usize = 500;

/// What main.cf has beside what is needed: nothing, the comments and blank lines of the file that Postfix comes with, or
/// parameters that nobody reads.
const DISTRIBUTED: &str = "/usr/share/postfix/main.cf.dist";
const UNUSED: usize = 2000;

/// A type of list: how one is named in main.cf, and what stands after an address in its lines.
const TYPES: [(&str, &str, &str); 3] = [
    ("cidr", "cidr:", "/32 x"),
    ("texthash", "texthash:", " x"),
    ("file", "", ""),
];

/// A figure with its target.
pub struct Figure {
    pub what: String,
    pub target: Target,
    pub value: Option<f64>,
}

/// A service of master's with a list of its own.
pub struct Kept {
    pub kind: &'static str,
    pub entries: usize,
    pub port: u16,
}

/// The lists are written into `dir`.
pub fn services(dir: &Path, programs: &Programs) -> io::Result<(Vec<Kept>, Vec<Service>)> {
    let (mut kept, mut services) = (Vec::new(), Vec::new());
    for list in TYPES {
        for entries in [1, KEPT] {
            let port = instance::free_port()?;
            let list_option = option(dir, list, entries)?;
            let options = options(SERVER, programs).join(" ");
            let command = format!("qmqpd {options} -o {list_option} -o qmqpd_peername_lookup=no");
            services.push(Service { port, command });
            let kind = list.0;
            kept.push(Kept {
                kind,
                entries,
                port,
            });
        }
    }
    Ok((kept, services))
}

/// Writes a list with the client at its end, and returns the option that uses it.
fn option(dir: &Path, list: (&str, &str, &str), entries: usize) -> io::Result<String> {
    let (prefix, path) = (list.1, write(dir, list, entries)?);
    Ok(format!(
        "qmqpd_authorized_clients={prefix}{}",
        path.display()
    ))
}

fn write(dir: &Path, (kind, _, suffix): (&str, &str, &str), entries: usize) -> io::Result<PathBuf> {
    let path = dir.join(format!("{kind}-{entries}"));
    let mut file = BufWriter::new(File::create(&path)?);
    for number in 1..entries {
        let [_, a, b, c] = (number as u32).to_be_bytes();
        writeln!(file, "10.{a}.{b}.{c}{suffix}")?;
    }
    writeln!(file, "{CLIENT}{suffix}")?;
    settle(&file.into_inner()?)?;
    Ok(path)
}

/// A file that has just been written is read again and again.
fn settle(file: &File) -> io::Result<()> {
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
}

impl Bench {
    pub fn lists(&mut self, place: &Place, dir: &Path) -> io::Result<Vec<Figure>> {
        let mut figures = Vec::new();
        for (long, short) in [(DISTRIBUTED, 1.10), ("unused", 3.0)] {
            figures.push(self.main_cf(place, dir, long, short));
        }
        for list in TYPES {
            figures.push(self.read(place, dir, list)?);
        }
        for pair in place.kept.chunks_exact(2) {
            if let [short, long] = pair {
                figures.push(self.kept(place, short, long)?);
            }
        }
        Ok(figures)
    }

    /// Instructions of a session with a long main.cf by those with a short one.
    fn main_cf(&mut self, place: &Place, dir: &Path, long: &str, limit: f64) -> Figure {
        let instructions = |text: &str, name: &str| {
            let config = dir.join(name);
            fs::create_dir_all(&config)?;
            let short = fs::read_to_string(place.instance.config_directory().join("main.cf"))?;
            let mut file = File::create(config.join("main.cf"))?;
            file.write_all((short + text).as_bytes())?;
            settle(&file)?;
            // valgrind's own calls are not in the filter.
            let program = Program::new(Mode::Stdin, SERVER.open(), &self.programs, &place.instance);
            let program = program.with_config(config);
            count::instructions(&program, &self.programs, &self.scratch, &SMALL.request())
        };
        let text = match long {
            "unused" => Ok((0..UNUSED)
                .map(|number| format!("unused_parameter_{number} = some value {number}\n"))
                .collect()),
            file => fs::read_to_string(file).map(|text| comments(&text)),
        };
        let ratio = text
            .and_then(|text: String| Ok(instructions(&text, "long")? / instructions("", "short")?));
        let what = match long {
            "unused" => {
                format!("6. main.cf with {UNUSED} unused lines: instructions by a short one")
            }
            _ => "6. main.cf as it is distributed: instructions by a short one".to_owned(),
        };
        if let Err(error) = &ratio {
            self.missing.push(format!("{what}: {error}"));
        }
        let (target, value) = (Target::AtMost(limit), ratio.ok());
        Figure {
            what,
            target,
            value,
        }
    }

    /// What a process for one client takes for a long list beyond what it takes for a short one, by what postmap(1) takes
    /// so: how fast the machine is plays no part then.
    fn read(
        &self,
        place: &Place,
        dir: &Path,
        list: (&'static str, &str, &str),
    ) -> io::Result<Figure> {
        let (mut cpu, mut postmap) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        // postmap has no type for lists of names and addresses alone.
        let (table, limit) = match list.0 {
            "cidr" => (list, CIDR),
            "texthash" => (list, TEXTHASH),
            _ => (TYPES[1], FILE),
        };
        for _ in 0..self.plan.rounds {
            for (number, entries) in [1, READ].into_iter().enumerate() {
                let program = Program::new(Mode::Stdin, SERVER, &self.programs, &place.instance);
                let program = program.with_option(&option(dir, list, entries)?);
                let mut metered = Metered::start(&program, &self.programs, &[])?;
                for _ in 0..self.plan.sessions.div_ceil(5) {
                    cpu[number].push(metered.session(&SMALL.request())?.usage.cpu());
                }
                place.instance.clear()?;
                let config = place.instance.config_directory();
                let (kind, name) = (table.0, write(dir, table, entries)?);
                let mut question = Command::new("postmap");
                question.arg("-c").arg(config).args(["-q", CLIENT]);
                question.arg(format!("{kind}:{}", name.display()));
                postmap[number].push(measure::to_the_end(&mut question)?);
            }
        }
        let more = |[short, long]: [Vec<f64>; 2]| Some(median(&long)? - median(&short)?);
        let (kind, of) = (list.0, table.0);
        Ok(Figure {
            what: format!(
                "7. {kind} of {READ} lines, one client: own CPU more, by postmap -q {of}"
            ),
            target: Target::AtMost(limit),
            value: more(cpu)
                .zip(more(postmap))
                .map(|(ours, postmap)| ours / postmap),
        })
    }

    /// What a resident process and its children take for a long list, by what they take for a short one.
    fn kept(&self, place: &Place, short: &Kept, long: &Kept) -> io::Result<Figure> {
        let mut cpu = [0.0, 0.0];
        for _ in 0..self.plan.rounds {
            for (kept, cpu) in [short, long].into_iter().zip(&mut cpu) {
                // The process is there, and has read its table.
                load::message(kept.port, &SMALL.request())?;
                let residents = place.instance.residents(kept.port)?;
                let before = measure::used(&residents)?;
                let load = Load {
                    clients: 1,
                    time: self.plan.time,
                    least: MESSAGES,
                };
                let sent = load::send(kept.port, &SMALL.request(), load)?;
                let used = measure::used(&residents)?.since(before);
                *cpu += used.per(sent.latencies.len()).cpu();
                place.instance.clear()?;
            }
        }
        let target = match long.kind {
            "file" => Target::None,
            _ => Target::AtMost(1.3),
        };
        let (kind, entries) = (long.kind, long.entries);
        let [short, long] = cpu;
        if short <= 0.0 {
            return Err(Error::other("a resident process that takes no time"));
        }
        Ok(Figure {
            what: format!("7. {kind} of {entries} lines, master's: own CPU by a list of one line"),
            target,
            value: Some(long / short),
        })
    }
}

/// The lines that set nothing.
fn comments(text: &str) -> String {
    let lines = text.lines();
    let comments = lines.filter(|line| line.starts_with('#') || line.trim().is_empty());
    comments.flat_map(|line| [line, "\n"]).collect()
}

/// Where the lists of a place are.
pub fn directory(dir: &Path) -> io::Result<PathBuf> {
    let lists = dir.join("lists");
    fs::create_dir_all(&lists)?;
    Ok(lists)
}
