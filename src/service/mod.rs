//! The order in which the process starts, the ways in which it is launched, and its exit.
//!
//! [`start()`] has the order: signals and descriptors, options, main.cf, log, and then the way of launching. Follows
//! `tests/spec/master.md`, sections 2 and 3. The protocol is left to `session`.
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

/// How long to wait for a client that is to hear of a failed start. qmqpd_timeout, the usual limit, may be the error.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a process that master(8) has started stays after its last line. master starts another process at once, and
/// would do nothing else if each failed immediately.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Runs the program. Returns the exit status: 0 also if the client was refused, 1 after a `fatal:` line.
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
        // A container, or a command by ssh, may show standard error and have no log.
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
    // Unlike Postfix, whose warnings about main.cf go to the log that was open before: a container may not have that
    // log (`tests/spec/differences.md`, 46). If main.cf does not name a log, they go there as well.
    let opened = destination::open_log(&config, process);
    log_warnings(&config);
    match opened {
        Ok(()) => Ok(config),
        Err(error) => Err(Fatal::from(error).located(&config)),
    }
}

/// Tells the log and the client, if there is one, why the process ends.
fn fail(fatal: &Fatal) -> u8 {
    say(fatal);
    apologize();
    // Unlike Postfix, which sleeps before the client's answer, and with every launcher (`tests/spec/differences.md`,
    // 5).
    if std::env::var_os("GENERATION").is_some() {
        std::thread::sleep(FAILURE_PAUSE);
    }
    EX_FATAL
}

/// Logs why the process ends.
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

/// Tells the client on descriptors 0 and 1 that it is not served. The client keeps its mail.
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
