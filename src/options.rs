//! Reads the command line: Postfix's letters for a daemon, and long names for people.
//!
//! Follows `tests/spec/main-cf.md`, section 4, and `tests/spec/master.md`, section 2. The meaning of `-o` values is
//! left to `config`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;

use getopts::{Fail, Matches, ParsingStyle};

use crate::config::{self, Config, Names, Override};

#[derive(Debug)]
pub struct Options {
    /// `-c`: chroot to queue_directory.
    pub chroot: bool,
    /// `-o`, `-i` and `-m`, in their order.
    pub overrides: Vec<Override>,
    /// `-n`
    pub service: Option<String>,
    /// `-t`, without `-S`.
    pub transport: Option<Transport>,
    /// `-l`: the service has one process only.
    pub single_process: bool,
    /// `-s`: the number of listening sockets.
    pub socket_count: i32,
    /// `-S` or `-d`: standard input may be a terminal.
    pub terminal_allowed: bool,
    /// `--accept`: accept connections on the launcher's listening sockets.
    pub accept: bool,
    /// The number of `-v`.
    pub verbose: u32,
    /// `-V`
    pub copy_to_stderr: bool,
    /// `--help`, `--check`, `--explain` and the other commands.
    pub command: Option<Command>,
    /// The first argument that is not an option. Postfix reports it when a client comes.
    pub stray: Option<String>,
}

/// The kind of service that master(8) starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Inet,
    Unix,
    Pass,
}

impl Transport {
    /// The name in master.cf.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Inet => "inet",
            Transport::Unix => "unix",
            Transport::Pass => "pass",
        }
    }
}

/// A command for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Help,
    Version,
    Check(Extent),
    /// With addresses, each with an optional name after it.
    Explain(Vec<String>),
    /// With the name of the queue file.
    Cat(PathBuf),
}

/// The extent of `--check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The configuration, and the steps of a start on this machine.
    All,
    /// `--configuration`: main.cf, its lists and master.cf, and not this machine.
    Configuration,
}

/// Why the command line is wrong, in Postfix's words.
#[derive(Debug)]
pub enum Error {
    Option(String),
    /// A command without its argument.
    Missing(String),
    Override(config::Error),
    SocketCount(String),
    RetirementTime(String),
    Transport(String),
    /// One argument too many for a command.
    Argument(String),
    /// `--accept` together with an option that excludes it.
    AcceptWith(&'static str),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Option(option) => write!(f, "invalid option: {option}"),
            Error::Missing(option) => {
                let takes = if option == "explain" {
                    "an address: --explain 192.0.2.1"
                } else {
                    "a file: --cat FILE"
                };
                write!(f, "--{option} takes {takes}")
            }
            Error::Override(error) => error.fmt(f),
            Error::SocketCount(text) => write!(f, "invalid socket_count: {text}"),
            Error::RetirementTime(text) => write!(f, "invalid retirement time: {text}"),
            Error::Argument(text) => write!(f, "unexpected command-line argument: {text}"),
            Error::Transport(text) => write!(f, "unsupported transport type: {text}"),
            Error::AcceptWith(option) => write!(f, "--accept excludes {option}"),
        }
    }
}

/// The options that are commands.
pub const COMMANDS: [&str; 6] = ["--help", "-h", "--version", "--check", "--explain", "--cat"];

/// Reads the arguments after the program's name.
pub fn parse(arguments: &[OsString]) -> Result<Options, Error> {
    let matches = grammar().parse(arguments).map_err(invalid)?;
    let socket_count = number(&matches, "s", Error::SocketCount)?;
    number(&matches, "r", Error::RetirementTime)?;
    let transport = match matches.opt_strs("t").pop() {
        Some(name) if !matches.opt_present("S") => Some(transport(&name)?),
        Some(_) | None => None,
    };
    let accept = matches.opt_present("accept");
    let rivals = [("S", "-S"), ("t", "-t")];
    if let Some((_, rival)) = rivals.iter().find(|(name, _)| matches.opt_present(name)) {
        if accept {
            return Err(Error::AcceptWith(rival));
        }
    }
    Ok(Options {
        chroot: matches.opt_present("c"),
        overrides: overrides(&matches)?,
        service: matches.opt_strs("n").pop(),
        transport,
        single_process: matches.opt_present("l"),
        socket_count: socket_count.unwrap_or(1),
        accept,
        terminal_allowed: matches.opt_present("S") || matches.opt_present("d"),
        verbose: u32::try_from(matches.opt_count("v")).unwrap_or(u32::MAX),
        copy_to_stderr: matches.opt_present("V"),
        command: command(&matches)?,
        stray: matches.free.first().cloned(),
    })
}

impl Options {
    /// Reads main.cf for a process of this name.
    pub fn load_config(&self, process: &str) -> Result<Config, config::Error> {
        let names = Names {
            service: self.service.clone().unwrap_or_else(|| process.to_owned()),
            process: process.to_owned(),
        };
        Config::load(&config::directory(), self.overrides.clone(), names)
    }
}

fn grammar() -> getopts::Options {
    let mut grammar = getopts::Options::new();
    grammar.parsing_style(ParsingStyle::StopAtFirstFree);
    for flag in ["c", "d", "D", "l", "S", "u", "v", "V", "z"] {
        grammar.optflagmulti(flag, "", "");
    }
    for option in ["i", "m", "n", "o", "r", "s", "t"] {
        grammar.optmulti(option, "", "", "");
    }
    grammar.optflag("h", "help", "").optflag("", "version", "");
    grammar
        .optflag("", "accept", "")
        .optflag("", "check", "")
        .optflag("", "configuration", "")
        .optopt("", "explain", "", "")
        .optopt("", "cat", "", "");
    grammar
}

fn invalid(fail: Fail) -> Error {
    Error::Option(match fail {
        Fail::ArgumentMissing(name) if name.len() > 1 => return Error::Missing(name),
        Fail::ArgumentMissing(name)
        | Fail::UnrecognizedOption(name)
        | Fail::OptionMissing(name)
        | Fail::OptionDuplicated(name)
        | Fail::UnexpectedArgument(name) => name,
    })
}

fn transport(name: &str) -> Result<Transport, Error> {
    [Transport::Inet, Transport::Unix, Transport::Pass]
        .into_iter()
        .find(|transport| name.eq_ignore_ascii_case(transport.name()))
        .ok_or_else(|| Error::Transport(name.to_owned()))
}

/// A whole number above zero. All values are checked; the last one counts.
fn number(matches: &Matches, name: &str, error: fn(String) -> Error) -> Result<Option<i32>, Error> {
    let mut last = None;
    for text in matches.opt_strs(name) {
        match text.parse::<i32>() {
            Ok(number) if number > 0 => last = Some(number),
            Ok(_) | Err(_) => return Err(error(text)),
        }
    }
    Ok(last)
}

/// The values of `-o`, `-i` (max_idle) and `-m` (max_use) in their order; the last value for a name counts.
fn overrides(matches: &Matches) -> Result<Vec<Override>, Error> {
    let mut found: Vec<(usize, String)> = matches.opt_strs_pos("o");
    for (option, parameter) in [("i", "max_idle"), ("m", "max_use")] {
        for (position, value) in matches.opt_strs_pos(option) {
            found.push((position, format!("{parameter}={value}")));
        }
    }
    found.sort_by_key(|(position, _)| *position);
    found
        .iter()
        .map(|(_, text)| Override::parse(text.as_bytes()).map_err(Error::Override))
        .collect()
}

fn command(matches: &Matches) -> Result<Option<Command>, Error> {
    let mut free = matches.free.iter().cloned();
    let command = if matches.opt_present("help") {
        Command::Help
    } else if matches.opt_present("version") {
        Command::Version
    } else if matches.opt_present("check") {
        Command::Check(if matches.opt_present("configuration") {
            Extent::Configuration
        } else {
            Extent::All
        })
    } else if let Some(address) = matches.opt_str("explain") {
        return Ok(Some(Command::Explain(
            [address].into_iter().chain(free).collect(),
        )));
    } else if let Some(file) = matches.opt_str("cat") {
        Command::Cat(file.into())
    } else if matches.opt_present("configuration") {
        return Err(Error::Option("configuration".to_owned()));
    } else {
        return Ok(None);
    };
    match free.next() {
        Some(argument) => Err(Error::Argument(argument)),
        None => Ok(Some(command)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &str) -> Result<Options, Error> {
        let arguments: Vec<OsString> = arguments.split_whitespace().map(OsString::from).collect();
        parse(&arguments)
    }

    #[test]
    fn what_master_adds_is_understood() {
        let options =
            parsed("-l -n 628 -t INET -d -v -v -u -c -o stress= -s 2 -m 5 -o a=b").unwrap();
        assert_eq!(options.transport, Some(Transport::Inet));
        assert_eq!(options.service.as_deref(), Some("628"));
        assert_eq!(options.verbose, 2);
        assert!(options.chroot && options.single_process && options.terminal_allowed);
        assert_eq!((options.socket_count, options.overrides.len()), (2, 3));
    }

    #[test]
    fn letters_may_stand_together() {
        let options = parsed("-Svvcn x").unwrap();
        assert_eq!((options.verbose, options.chroot), (2, true));
        assert_eq!(options.service.as_deref(), Some("x"));
    }

    #[test]
    fn stdin_mode_wins_over_a_transport() {
        assert_eq!(parsed("-S -t inet").unwrap().transport, None);
    }

    #[test]
    fn the_program_accepts_where_it_is_told_to() {
        for (arguments, accept) in [("--accept -c -v", true), ("-d", false)] {
            assert_eq!(parsed(arguments).unwrap().accept, accept, "{arguments}");
        }
    }

    #[test]
    fn what_is_not_said_has_its_usual_value() {
        let options = parsed("-t unix").unwrap();
        assert_eq!(options.socket_count, 1);
        assert!(!options.single_process && !options.terminal_allowed && !options.chroot);
    }

    #[test]
    fn the_first_stray_argument_is_kept() {
        assert_eq!(parsed("-S foo -x").unwrap().stray.as_deref(), Some("foo"));
    }

    #[test]
    fn what_people_ask_for_goes_with_other_options() {
        let explain = |words: &str| {
            let words = words.split(' ').map(str::to_owned);
            Some(Command::Explain(words.collect()))
        };
        for (arguments, command) in [
            ("--check -o a=b", Some(Command::Check(Extent::All))),
            (
                "--configuration --check",
                Some(Command::Check(Extent::Configuration)),
            ),
            ("-o a=b --explain ::1", explain("::1")),
            ("--explain ::1 -v a.example", explain("::1 a.example")),
            ("-h", Some(Command::Help)),
            ("-Sh", Some(Command::Help)),
            ("-S", None),
        ] {
            assert_eq!(parsed(arguments).unwrap().command, command, "{arguments}");
        }
    }

    #[test]
    fn errors_are_in_the_words_of_postfix() {
        for (arguments, text) in [
            ("-x", "invalid option: x"),
            ("-s 0", "invalid socket_count: 0"),
            ("-s x", "invalid socket_count: x"),
            ("-r 0", "invalid retirement time: 0"),
            ("-t fifo", "unsupported transport type: fifo"),
            ("--configuration", "invalid option: configuration"),
            ("--accept -t inet", "--accept excludes -t"),
            ("-S --accept", "--accept excludes -S"),
            ("--check x", "unexpected command-line argument: x"),
            (
                "--explain",
                "--explain takes an address: --explain 192.0.2.1",
            ),
            ("--cat", "--cat takes a file: --cat FILE"),
            ("-o", "invalid option: o"),
            (
                "-o foo",
                "invalid \"-o foo\" option value: missing '=' after attribute name",
            ),
        ] {
            assert_eq!(
                parsed(arguments).unwrap_err().to_string(),
                text,
                "{arguments}"
            );
        }
    }
}
