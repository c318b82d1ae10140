//! What the program does for people who call it themselves: help, and commands that serve nobody.
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

/// Whether somebody has typed this, and should not have to look for the answer in a log. Launchers ask for no command.
pub fn by_hand(arguments: &[OsString]) -> bool {
    let is_command = |argument: &OsString| COMMANDS.iter().any(|name| argument == name);
    std::io::stdin().is_terminal() || arguments.iter().any(is_command)
}

/// What people asked for.
pub fn obey(command: &Command, options: &Options, process: &str) -> u8 {
    match command {
        Command::Help => help::print(HELP),
        Command::Version => help::print(VERSION),
        Command::Check(extent) => check::run(*extent, options, process),
        Command::Explain(clients) => explain::run(clients, options, process),
        Command::Cat(path) => cat::run(path),
    }
}
