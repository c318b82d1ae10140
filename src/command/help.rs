//! The help text, the version, and the answers to a wrong command line.
//!
//! The manual, `src/qmqpd.8`, has the meaning of each option; reading them is left to `options`.

use std::io::Write;

use crate::exit::{EX_FATAL, EX_OK, EX_USAGE};
use crate::log;
use crate::options;
use crate::sys::ignore;

pub const HELP: &str = "\
usage: qmqpd [-cSvV] [-n service] [-o parameter=value] [--accept]
       qmqpd --check [--configuration] | --explain address [name] ... | --cat file

qmqpd receives one message by QMQP on standard input and output, puts it into
the mail queue, and replies. inetd, xinetd, tcpserver or systemd (Accept=yes)
starts it for each connection, or Postfix's master(8) starts it as a service.
With --accept qmqpd accepts connections on the listening sockets of systemd,
inetd or xinetd, and starts a process for each connection.

The parameters are those of Postfix's main.cf, in /etc/postfix or in the
directory that the environment variable MAIL_CONFIG names. qmqpd_queue_method
names the queue: Postfix's cleanup daemon (cleanup, the default), a queue file
that qmqpd writes (file), or a program such as qmail-queue (qmail:PROGRAM).

  -c           make $queue_directory the root directory
  -n SERVICE   the value of $service_name
  -o NAME=VAL  set a parameter, in place of main.cf
  -S           serve standard input and output (the default)
  -t TYPE      serve as a service of master: inet, unix or pass
  -v           log more; may be repeated
  -V           log to standard error as well
  --accept     accept connections on the launcher's listening sockets
  --cat FILE   print a queue file: envelope, times, message
  --check      print the settings and all mistakes in them
  --configuration
               with --check: look at the configuration, and not at this machine
  --explain ADDRESS [NAME] ...
               print whether these clients may send, and what decides it
  --help, -h   print this text
  --version    print name and version
";

pub const VERSION: &str = concat!("qmqpd ", env!("CARGO_PKG_VERSION"), "\n");

const BY_HAND: &str = "\
qmqpd: fatal: do not run this command by hand
This is a mail server that inetd, xinetd, tcpserver, systemd or Postfix starts
for each connection. \"qmqpd --help\" says how.
";

/// Reports a wrong command line on standard error, which is never the client: the first step of a start sees to it.
pub fn misuse(error: &options::Error) -> u8 {
    let text = format!("qmqpd: {error}\n\"qmqpd --help\" lists the options.\n");
    tell(&text);
    EX_USAGE
}

/// Refuses to start on a terminal, where the program would wait for a request without end.
pub fn refuse_terminal() -> u8 {
    log::fatal!("do not run this command by hand");
    tell(BY_HAND);
    EX_FATAL
}

/// Writes to standard output. Returns the exit status; an error has no place to be reported.
pub fn print(text: &str) -> u8 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => EX_OK,
        Err(_) => EX_FATAL,
    }
}

/// Writes to standard error, for people. An error has no place to be reported.
pub fn tell(text: &str) {
    ignore(std::io::stderr().write_all(text.as_bytes()));
}
