//! The log that the environment and main.cf name.
//!
//! Follows `tests/spec/main-cf.md`, section 8, and `tests/spec/logging.md`, sections 3 and 4. Writing to the log is
//! left to `log`.

use std::io;
use std::path::PathBuf;

use nix::sys::stat::fstat;

use crate::config::{self, Config};
use crate::log::{self, Destination, FACILITY_MAIL};
use crate::sys::time;

/// The tag of log lines until main.cf has been read.
pub fn early_tag(process: &str) -> String {
    let name = std::env::var("MAIL_LOGTAG").unwrap_or_else(|_| "postfix".to_owned());
    format!("{name}/{process}")
}

/// The destination until main.cf has been read: the one that master(8) gives in the environment, otherwise syslog.
pub fn early() -> Destination {
    match std::env::var_os("POSTLOG_SERVICE") {
        Some(socket) if !socket.is_empty() => Destination::Postlog {
            socket: PathBuf::from(socket),
            host: first_label(
                &std::env::var("POSTLOG_HOSTNAME").unwrap_or_else(|_| "amnesiac".to_owned()),
            ),
        },
        Some(_) | None => Destination::Syslog {
            facility: FACILITY_MAIL,
        },
    }
}

/// Opens the log for the whole life of the process, while its socket can be reached.
pub fn open_log(config: &Config, process: &str) -> Result<(), config::Error> {
    let destination = destination(config)?;
    // Errors in the parameters that follow are logged there already.
    log::configure(&early_tag(process), destination.clone(), false);
    let tag = format!("{}/{process}", config.syslog_name()?);
    // Evaluated before the parameters whose defaults depend on it, so that an error in it is reported and not theirs.
    config.compatibility_level()?;
    let utf8 = config.smtputf8_enable()?;
    log::configure(&tag, destination, utf8);
    time::init();
    log::connect();
    Ok(())
}

fn destination(config: &Config) -> Result<Destination, config::Error> {
    if config.qmqpd_log_stderr()? {
        return Ok(Destination::Stderr {
            journal: is_journal(),
        });
    }
    if config.maillog_file()?.as_os_str().is_empty() {
        let facility = config.syslog_facility()?;
        return Ok(Destination::Syslog { facility });
    }
    let mut socket = config.queue_directory()?;
    socket.push("public");
    socket.push(config.postlog_service_name()?);
    let host = first_label(&config.myhostname()?);
    Ok(Destination::Postlog { socket, host })
}

/// Whether standard error is the journal, by the test of systemd.exec(5). The variable alone does not prove it: it is
/// inherited.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(io::stderr()).is_ok_and(|file| stream == format!("{}:{}", file.st_dev, file.st_ino))
}

fn first_label(host: &str) -> String {
    host.split('.').next().unwrap_or_default().to_owned()
}
