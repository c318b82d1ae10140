//! How the process starts, what it is confined to, and how it exits. Does not know the protocol.
//!
//! The order of a start is [`start()`]: signals and descriptors, options, main.cf, log, and then one of the ways of being
//! launched.
#![forbid(unsafe_code)]

mod accept;
mod destination;
mod inetd;
mod listener;
mod master;
mod pass;
mod resident;
mod server;
mod share;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use crate::command;
use crate::config::Config;
use crate::exit::{EX_FATAL, EX_OK, Fatal};
use crate::log;
use crate::options::{self, Options};
use crate::peer;
use crate::session::{self, Client, Outcome};
use crate::sys::{entry, ignore, inherit};

use master::Inherited;
use server::log_warnings;

/// How long a client is waited for that is to hear of a failure to start: main.cf, which sets the limit otherwise, may be
/// what is broken.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a process that master(8) has started stays after its last line. master starts another one at once, and would
/// see to nothing else if that failed as fast.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Runs the program and says how it went: 0 also where the client was refused, 1 after a `fatal:` line.
pub fn run() -> u8 {
    std::panic::set_hook(Box::new(|info| log::panic(format_args!("{info}"))));
    match start() {
        Ok(code) => code,
        Err(fatal) => fail(&fatal),
    }
}

fn start() -> Result<u8, Fatal> {
    let mut arguments = entry::arguments().into_iter();
    let process = process_name(arguments.next());
    log::configure(
        &destination::early_tag(&process),
        destination::early(),
        false,
    );
    inherit::first_act().map_err(Fatal::from_display)?;
    let arguments: Vec<OsString> = arguments.collect();
    let options = match options::parse(&arguments) {
        Err(error) if command::by_hand(&arguments) => return Ok(command::misuse(&error)),
        // A container, or a command over ssh, may show standard error and have no log.
        Err(error) => {
            command::misuse(&error);
            return Err(Fatal::from_display(error));
        }
        Ok(options) => options,
    };
    if let Some(command) = &options.command {
        return Ok(command::obey(command, &options, &process));
    }
    if options.accept {
        return Ok(accept::run(&options, &process));
    }
    if !options.terminal_allowed && inherit::client_input().is_terminal() {
        return Ok(command::refuse_terminal());
    }
    let inherited = match options.transport {
        None => {
            inherit::close_inherited();
            None
        }
        Some(transport) => Some(Inherited::take(transport, &options)?),
    };
    let config = load(&options, &process)?;
    let outcome = match inherited {
        None => inetd::serve_stdin(&options, &config),
        Some(inherited) => master::run_daemon(&options, &config, inherited),
    }
    .map_err(|fatal| {
        log_warnings(&config);
        fatal.located(&config)
    })?;
    Ok(match outcome {
        Outcome::Queued | Outcome::Served => EX_OK,
        Outcome::Failed => EX_FATAL,
    })
}

/// Reads main.cf and opens the log that it names.
fn load(options: &Options, process: &str) -> Result<Config, Fatal> {
    if options.copy_to_stderr {
        log::copy_to_stderr();
    }
    let environment = u32::from(std::env::var_os("MAIL_VERBOSE").is_some());
    log::set_verbosity(options.verbose.saturating_add(environment));
    let config = options.load_config(process)?;
    // Unlike Postfix, whose warnings of main.cf go to the log that was open before it: a container may not have that
    // (`tests/spec/differences.md`, 46). Where main.cf does not say which log it wants, they stay there.
    let opened = destination::open_log(&config, process);
    log_warnings(&config);
    match opened {
        Ok(()) => Ok(config),
        Err(error) => Err(Fatal::from(error).located(&config)),
    }
}

/// Says why the process ends: to the log, and to the client, if there is one.
fn fail(fatal: &Fatal) -> u8 {
    say(fatal);
    apologize();
    // Unlike Postfix, which sleeps before a client has its answer, and wherever it is started
    // (`tests/spec/differences.md`, 5).
    if std::env::var_os("GENERATION").is_some() {
        std::thread::sleep(FAILURE_PAUSE);
    }
    EX_FATAL
}

/// Says to the log why the process ends.
fn say(fatal: &Fatal) {
    match fatal {
        Fatal::Text(text) | Fatal::Parameter(_, text) => log::fatal!("{text}"),
        Fatal::Logged => {}
        Fatal::Config(error) => {
            if let Some(text) = error.preceding_error() {
                ignore(log::error!("{text}"));
            }
            for warning in error.warnings() {
                log::warning!("{warning}");
            }
            log::fatal!("{error}");
        }
    }
}

/// Says to the client on descriptors 0 and 1 that it is not served. It keeps its mail.
fn apologize() {
    let by_master = std::env::var_os("GENERATION").is_some();
    let namaddr = peer::shown(inherit::client_input(), !by_master);
    if let Some(descriptors) = inherit::client() {
        session::apologize(Client::new(descriptors, FAILURE_TIMEOUT), &namaddr);
    }
}

fn process_name(argument: Option<OsString>) -> String {
    let argument = argument.unwrap_or_default();
    let name = Path::new(&argument).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
