//! The commands for people: `--help`, `--version`, `--check`, `--explain`, `--cat`.
//!
//! A command serves no client and logs nothing. What the values of parameters mean is left to `config` and the other
//! rooms, which a command calls as a serving process does.
#![forbid(unsafe_code)]

mod accounts;
pub mod cat;
mod check;
mod encoding;
mod explain;
mod help;
mod items;
mod master_cf;
pub mod names;
mod proxies;
mod rehearsal;
mod report;
pub mod survey;
mod unit;

use std::ffi::OsString;
use std::io::IsTerminal;

use crate::options::{COMMANDS, Command, Options};

use help::{HELP, VERSION};

pub use help::{misuse, refuse_terminal, tell};

/// Whether a person has started the program: on a terminal, or with a command. Launchers do neither.
pub fn by_hand(arguments: &[OsString]) -> bool {
    let is_command = |argument: &OsString| COMMANDS.iter().any(|name| argument == name);
    std::io::stdin().is_terminal() || arguments.iter().any(is_command)
}

/// Runs the command. Returns the exit status.
pub fn obey(command: &Command, options: &Options, process: &str) -> u8 {
    match command {
        Command::Help => help::print(HELP),
        Command::Version => help::print(VERSION),
        Command::Check(extent) => check::run(*extent, options, process),
        Command::Explain(clients) => explain::run(clients, options, process),
        Command::Cat(path) => cat::run(path),
    }
}
