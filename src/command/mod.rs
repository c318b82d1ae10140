//! What the program does for people who call it themselves: help, and commands that serve nobody.
#![forbid(unsafe_code)]

mod accounts;
pub mod cat;
mod check;
mod explain;
mod rehearsal;
mod report;
pub mod survey;

use std::ffi::OsString;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

use crate::exit::{EX_FATAL, EX_OK, EX_USAGE};
use crate::log;
use crate::options::{self, Command, Options};
use crate::sys::time;

use explain::Subject;

const HELP: &str = "\
usage: qmqpd [-cSvV] [-n service] [-o parameter=value]
       qmqpd --check | --explain address [name] | --cat file

Receives one message by QMQP on standard input and output, puts it into the
mail queue, and answers. It is started for each connection by inetd, xinetd,
tcpserver or systemd (Accept=yes), or as a service by Postfix's master(8);
parameters come from Postfix's main.cf, in /etc/postfix or the directory that
the environment variable MAIL_CONFIG names. qmqpd_queue_method says where the
message goes: to Postfix's cleanup daemon (cleanup, the default), into a queue
file that qmqpd writes (file), or to a program such as qmail-queue
(qmail:PROGRAM).

  -c           chroot to $queue_directory
  -n SERVICE   what $service_name stands for
  -o NAME=VAL  as in main.cf, and instead of it
  -S           serve standard input and output (the default)
  -t TYPE      serve for master: inet, unix or pass
  -v           log more; may be repeated
  -V           log to standard error as well
  --cat FILE   show a queue file: envelope, times, message
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

/// Whether somebody has typed this, and should not have to look for the answer in a log. Launchers ask for no command.
pub fn by_hand(arguments: &[OsString]) -> bool {
    let is_command = |argument: &OsString| options::COMMANDS.iter().any(|name| argument == name);
    std::io::stdin().is_terminal() || arguments.iter().any(is_command)
}

/// Answers a command line that makes no sense.
pub fn misuse(error: &options::Error) -> u8 {
    let text = format!("qmqpd: {error}\n\"qmqpd --help\" lists what there is.\n");
    tell(&text);
    EX_USAGE
}

/// What people asked for.
pub fn obey(command: &Command, options: &Options, process: &str) -> u8 {
    match command {
        Command::Help => print(HELP),
        Command::Version => print(concat!("qmqpd ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Check => check::run(options, process),
        Command::Explain(address, name) => match Subject::parse(address, name.as_deref()) {
            Some(subject) => explain::run(&subject, options, process),
            None => explain::refuse(address),
        },
        Command::Cat(path) => print_queue_file(path),
    }
}

/// If the terminal is gone there is nobody to tell.
fn print(text: &str) -> u8 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => EX_OK,
        Err(_) => EX_FATAL,
    }
}

fn print_queue_file(path: &Path) -> u8 {
    time::init();
    let mut out = BufWriter::new(std::io::stdout().lock());
    let shown = std::fs::read(path)
        .and_then(|file| cat::cat(path, &file, &mut out))
        .and_then(|whole| out.flush().map(|()| whole));
    let problem = match shown {
        Ok(true) => return EX_OK,
        Ok(false) => "unexpected end of file".to_owned(),
        Err(error) => log::error_text(&error),
    };
    tell(&format!("qmqpd: fatal: {}: {problem}\n", path.display()));
    EX_FATAL
}

/// Says what this is to somebody who has started it on a terminal, where it would wait for a request for ever.
pub fn refuse_terminal() -> u8 {
    log::fatal(format_args!("do not run this command by hand"));
    tell(BY_HAND);
    EX_FATAL
}

/// Standard error is for people. If it is gone there is nobody to tell.
fn tell(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}
