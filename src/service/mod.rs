//! How the process starts, what it is confined to, and how it exits. Does not know the protocol.
//!
//! The order of a start is [`start`]: signals and descriptors, options, main.cf, log, and then one of the ways of being
//! launched.
#![forbid(unsafe_code)]

mod check;
mod destination;
mod explain;
mod inetd;
mod master;
mod options;
mod rehearsal;
mod report;
mod server;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{self, Config, Names};
use crate::log;
use crate::lookup;
use crate::session::{self, Client, Outcome};
use crate::sys::{alarm, start};

use explain::Subject;
use master::Inherited;
use options::{Command, Options};

/// How long a client is waited for that is to hear of a failure to start: main.cf, which sets the limit otherwise, may be
/// what is broken.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a process that master(8) has started stays after its last line. master starts another one at once, and would
/// see to nothing else if that failed as fast.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// sysexits.h: the command line makes no sense.
const EX_USAGE: u8 = 64;

/// sysexits.h: the configuration is wrong.
const EX_CONFIG: u8 = 78;

const HELP: &str = "\
usage: qmqpd [-cSvV] [-n service] [-o parameter=value]

Receives one message by QMQP on standard input and output, puts it into the
mail queue, and answers. It is started for each connection by inetd, xinetd,
tcpserver or systemd (Accept=yes), or as a service by Postfix's master(8);
parameters come from Postfix's main.cf, in /etc/postfix or the directory that
the environment variable MAIL_CONFIG names.

  -c           chroot to $queue_directory
  -n SERVICE   what $service_name stands for
  -o NAME=VAL  as in main.cf, and instead of it
  -S           serve standard input and output (the default)
  -v           log more; may be repeated
  -V           log to standard error as well
  --check      what is set, and everything that is wrong with it
  --explain ADDRESS [NAME]
               whether this client may send, and what decides that
  --help       this text
  --version    name and version
";

const BY_HAND: &str = "\
qmqpd: fatal: do not run this command by hand
This is a mail server that inetd, xinetd, tcpserver, systemd or Postfix starts
for each connection. \"qmqpd --help\" says how.
";

/// Why the process ends without having served anybody.
enum Fatal {
    /// With the line that goes to the log.
    Text(String),
    Config(config::Error),
    /// For a reason that is in the log already.
    Logged,
}

impl Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fatal::Text(text) => f.write_str(text),
            Fatal::Config(error) => error.fmt(f),
            Fatal::Logged => log::TooManyErrors.fmt(f),
        }
    }
}

impl From<config::Error> for Fatal {
    fn from(error: config::Error) -> Self {
        Fatal::Config(error)
    }
}

impl From<log::TooManyErrors> for Fatal {
    fn from(_: log::TooManyErrors) -> Self {
        Fatal::Logged
    }
}

impl From<lookup::Error> for Fatal {
    fn from(error: lookup::Error) -> Self {
        match error {
            lookup::Error::TooManyErrors(error) => error.into(),
            lookup::Error::NoPattern { .. }
            | lookup::Error::ReadFile { .. }
            | lookup::Error::TableProblem { .. } => Fatal::from_display(error),
        }
    }
}

impl Fatal {
    fn from_display(error: impl Display) -> Self {
        Fatal::Text(error.to_string())
    }
}

/// Runs the program and says how it went: 0 also where the client was refused, 1 after a `fatal:` line.
pub fn run() -> ExitCode {
    std::panic::set_hook(Box::new(|info| log::panic(format_args!("{info}"))));
    match start() {
        Ok(code) => code,
        Err(fatal) => fail(&fatal),
    }
}

fn start() -> Result<ExitCode, Fatal> {
    start::first_act().map_err(Fatal::from_display)?;
    let mut arguments = std::env::args_os();
    let process = process_name(arguments.next());
    log::configure(
        &destination::early_tag(&process),
        destination::early(),
        false,
    );
    let arguments: Vec<OsString> = arguments.collect();
    let options = match options::parse(&arguments) {
        Err(error) if by_hand(&arguments) => return Ok(misuse(&error)),
        parsed => parsed.map_err(Fatal::from_display)?,
    };
    if let Some(command) = &options.command {
        return Ok(obey(command, &options, &process));
    }
    if !options.terminal_allowed && std::io::stdin().is_terminal() {
        return Ok(refuse_terminal());
    }
    let inherited = match options.transport {
        None => {
            start::close_inherited();
            None
        }
        Some(transport) => Some(Inherited::take(transport, &options)?),
    };
    alarm::init().map_err(Fatal::from_display)?;
    let config = load(&options, process)?;
    let outcome = match inherited {
        None => inetd::serve(&options, &config),
        Some(inherited) => master::serve(&options, &config, inherited),
    }
    .inspect_err(|_| log_warnings(&config))?;
    Ok(match outcome {
        Outcome::Served => ExitCode::SUCCESS,
        Outcome::Failed => ExitCode::FAILURE,
    })
}

/// Reads main.cf and opens the log that it names.
fn load(options: &Options, process: String) -> Result<Config, Fatal> {
    if options.copy_to_stderr {
        log::copy_to_stderr();
    }
    let environment = u32::from(std::env::var_os("MAIL_VERBOSE").is_some());
    log::set_verbosity(options.verbose.saturating_add(environment));
    let names = Names {
        service: options.service.clone().unwrap_or_else(|| process.clone()),
        process: process.clone(),
    };
    let config = Config::load(&config::directory(), options.overrides.clone(), names)?;
    log_warnings(&config);
    destination::open(&config, &process)?;
    Ok(config)
}

fn log_warnings(config: &Config) {
    for warning in config.take_warnings() {
        log::warning(format_args!("{warning}"));
    }
}

/// Says why the process ends: to the log, and to the client, if there is one. The client keeps its mail.
fn fail(fatal: &Fatal) -> ExitCode {
    match fatal {
        Fatal::Text(text) => log::fatal(format_args!("{text}")),
        Fatal::Logged => {}
        Fatal::Config(error) => {
            if let Some(text) = error.preceding_error() {
                log::error(format_args!("{text}")).unwrap_or_default();
            }
            for warning in error.warnings() {
                log::warning(format_args!("{warning}"));
            }
            log::fatal(format_args!("{error}"));
        }
    }
    if let Some(descriptors) = start::client() {
        session::apologize(Client::new(descriptors, FAILURE_TIMEOUT));
    }
    // Unlike Postfix, which sleeps before a client has its answer, and wherever it is started.
    if std::env::var_os("GENERATION").is_some() {
        std::thread::sleep(FAILURE_PAUSE);
    }
    ExitCode::FAILURE
}

fn process_name(argument: Option<OsString>) -> String {
    let argument = argument.unwrap_or_default();
    let name = Path::new(&argument).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Whether somebody has typed this, and should not have to look for the answer in a log. Launchers ask for no command.
fn by_hand(arguments: &[OsString]) -> bool {
    let is_command = |argument: &OsString| options::COMMANDS.iter().any(|name| argument == name);
    std::io::stdin().is_terminal() || arguments.iter().any(is_command)
}

fn misuse(error: &options::Error) -> ExitCode {
    let text = format!("qmqpd: {error}\n\"qmqpd --help\" lists what there is.\n");
    drop(std::io::stderr().write_all(text.as_bytes()));
    ExitCode::from(EX_USAGE)
}

/// What people asked for.
fn obey(command: &Command, options: &Options, process: &str) -> ExitCode {
    match command {
        Command::Help => print(HELP),
        Command::Version => print(concat!("qmqpd ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Check => check::run(options, process),
        Command::Explain(address, name) => match Subject::parse(address, name.as_deref()) {
            Some(subject) => explain::run(&subject, options, process),
            None => explain::refuse(address),
        },
    }
}

/// If the terminal is gone there is nobody to tell.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn refuse_terminal() -> ExitCode {
    log::fatal(format_args!("do not run this command by hand"));
    drop(std::io::stderr().write_all(BY_HAND.as_bytes()));
    ExitCode::FAILURE
}
