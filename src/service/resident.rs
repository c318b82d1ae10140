//! What the resident processes have in common: the one under master(8), and the one with `--accept`.
//!
//! A resident process forks a child for each connection, and reads no byte from clients. [`serve_child`] is the child's
//! part. Waiting, and the messages to the launcher, are left to `service::master` and `service::accept`.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::poll::PollTimeout;
use nix::unistd::{dup2_stdin, dup2_stdout};

use crate::exit::Fatal;
use crate::log;
use crate::options::Options;
use crate::session::Outcome;

use super::listener::Connection;
use super::server::Server;
use super::share::Asker;

/// How long a child may outlive daemon_timeout before it is killed. The child's own watch does not cover a name lookup,
/// the error delay, and waits in progress.
pub const CHILD_GRACE: Duration = Duration::from_secs(30);

/// In the child: puts the connection on the descriptors that a launcher uses, and serves it.
pub fn serve_child(
    server: &Server<'_>,
    options: &Options,
    connection: Connection,
    asker: Option<Asker>,
) -> Result<Outcome, Fatal> {
    log::begin_process();
    let client = match connection.into_client() {
        Ok(client) => client,
        Err(error) => {
            let text = log::error_text(&error);
            log::error!("accept connection: {text}")?;
            return Ok(Outcome::Failed);
        }
    };
    put_on_descriptors(client)?;
    server.serve_client(options, asker)
}

pub fn put_on_descriptors(client: OwnedFd) -> Result<(), Fatal> {
    dup2_stdin(&client).map_err(|errno| system("dup2", &errno.into()))?;
    dup2_stdout(&client).map_err(|errno| system("dup2", &errno.into()))
}

pub fn system(call: &str, error: &io::Error) -> Fatal {
    Fatal::Text(format!("{call}: {}", log::error_text(error)))
}

/// Rounds up, so that a wait does not end before its time.
pub fn milliseconds(left: Duration) -> PollTimeout {
    let whole = left.as_nanos().div_ceil(1_000_000);
    i32::try_from(whole)
        .ok()
        .and_then(|whole| PollTimeout::try_from(whole).ok())
        .unwrap_or(PollTimeout::MAX)
}

/// The first ready listener from `next` on, otherwise the first of all. So clients of one listener do not make those of
/// another wait.
pub fn whose_turn(ready: impl Iterator<Item = bool>, next: usize) -> Option<usize> {
    let ready: Vec<usize> = (0..)
        .zip(ready)
        .filter_map(|(number, is_ready)| is_ready.then_some(number))
        .collect();
    let after = ready.iter().find(|&&number| number >= next);
    after.or(ready.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::whose_turn;

    #[test]
    fn listeners_have_their_turns() {
        let ready = [true, false, true, false];
        let turn = |next| whose_turn(ready.into_iter(), next);
        assert_eq!([0, 1, 2, 3, 4].map(turn), [0, 2, 2, 0, 0].map(Some));
        assert_eq!(whose_turn([false; 3].into_iter(), 0), None);
    }
}
